"""Losses. The test says which of our builders each name means."""
import torch
import torch.nn.functional as F

from framework import Case, draw, ints

LABELS = [0, 3, 1, 2, 3]


def cross_entropy(name, labels=LABELS, shape=(5, 4), axis=-1, ignore=None, smoothing=0.0, reduction="mean", high=3.0):
    attributes = {"axis": axis, "reduction": reduction, "labelSmoothing": smoothing}
    if ignore is not None:
        attributes["ignoreIndex"] = ignore
    return Case(f"crossEntropy, {name}", "crossEntropy",
                lambda: {"logits": draw(*shape, low=-high, high=high), "labels": ints(labels)},
                lambda x, y: F.cross_entropy(x.movedim(axis, 1), y, ignore_index=-100 if ignore is None else ignore,
                                             label_smoothing=smoothing, reduction=reduction),
                attributes)


def pair(name, op, function, attributes=None, low=-2.0, high=2.0, target=(-2.0, 2.0)):
    return Case(name, op, lambda: {"x": draw(3, 4, low=low, high=high), "t": draw(3, 4, low=target[0], high=target[1], gradient=False)},
                function, attributes)


def log_inputs():
    x, t = draw(3, 4), draw(3, 4)
    x.data, t.data = F.log_softmax(x.data, -1), F.softmax(t.data, -1)
    return {"x": x, "t": t}


SEQUENCE = [[0, 3, 1], [2, 2, 0]]

CASES = [
    cross_entropy("mean"),
    cross_entropy("sum", reduction="sum"),
    cross_entropy("sequence", SEQUENCE, (2, 3, 4)),
    cross_entropy("classes in dim 1", SEQUENCE, (2, 4, 3), axis=1),
    cross_entropy("ignored labels", ignore=3),
    cross_entropy("ignored label -100", [0, -100, 1, -100, 3], ignore=-100),
    cross_entropy("smoothing", smoothing=0.1),
    cross_entropy("smoothing and ignored labels", smoothing=0.2, ignore=3),
    cross_entropy("smoothing, sum, ignored", smoothing=0.2, ignore=0, reduction="sum"),
    cross_entropy("large logits", high=200.0),
    pair("mse", "mse", F.mse_loss),
    pair("mse, sum", "mse", lambda x, t: F.mse_loss(x, t, reduction="sum"), {"reduction": "sum"}),
    pair("l1", "l1", F.l1_loss),
    pair("huber", "huber", F.huber_loss),
    pair("huber, delta 0.3", "huber", lambda x, t: F.huber_loss(x, t, delta=0.3), {"delta": 0.3}),
    pair("binary cross-entropy", "bce", F.binary_cross_entropy_with_logits, target=(0.0, 1.0)),
    pair("binary cross-entropy of large logits", "bce", F.binary_cross_entropy_with_logits, low=-80, high=80, target=(0.0, 1.0)),
    pair("binary cross-entropy, weighted", "bce",
         lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(3.0, dtype=torch.float64)),
         {"positiveWeight": 3.0}, target=(0.0, 1.0)),
    Case("KL, batch mean", "kl", log_inputs, lambda x, t: F.kl_div(x, t, reduction="batchmean")),
    Case("KL, sum", "kl", log_inputs, lambda x, t: F.kl_div(x, t, reduction="sum"), {"reduction": "sum"}),
    pair("KL of logs, mean", "kl", lambda x, t: F.kl_div(x, t, reduction="mean", log_target=True),
         {"reduction": "mean", "logTarget": True}, low=-3.0, high=-0.1, target=(-3.0, -0.1)),
]
