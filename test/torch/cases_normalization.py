"""Softmax and normalizations."""
import torch
import torch.nn.functional as F

from framework import Case, bools, draw, ints, values

SIZE = {"x": (2, 3, 4)}


def softmax(op, function, axis, *shape):
    return Case(f"{op}, axis {axis} of {len(shape)}", op, lambda: {"x": draw(*shape, low=-3, high=3)},
                lambda x: function(x, axis), {"axis": axis})


def large(op, function):
    return Case(f"{op} of large numbers", op, lambda: {"x": values([[500.0, 0.0, -500.0], [80.0, 88.0, 90.0]])},
                lambda x: function(x, -1), {"axis": -1})


def layer_norm(name, shape, axis, bias=True, epsilon=1e-5, low=-1.0, tolerance=None):
    size = shape[axis:]

    def make():
        inputs = {"x": draw(*shape, low=low, high=low + 2), "scale": draw(*size, low=0.5, high=1.5)}
        return {**inputs, "bias": draw(*size)} if bias else inputs

    return Case(f"LayerNormalization, {name}", "LayerNormalization", make,
                lambda x, scale, *b: F.layer_norm(x, size, scale, *b, eps=epsilon),
                {"axis": axis, "epsilon": epsilon}, tolerance=tolerance)


def with_statistics(x, scale):
    mean = x.mean(-1, keepdim=True)
    inverse = 1 / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    return (x - mean) * inverse * scale, mean, inverse


def rms_norm(name, shape, axis):
    def function(x, scale):
        dims = list(range(axis % len(shape), len(shape)))
        return x / torch.sqrt((x * x).mean(dims, keepdim=True) + 1e-5) * scale

    return Case(f"RMSNormalization, {name}", "RMSNormalization",
                lambda: {"x": draw(*shape), "scale": draw(*shape[axis:], low=0.5, high=1.5)}, function, {"axis": axis})


def batch_norm(name, shape, training, momentum=0.9):
    c = shape[1]

    def make():
        return {"x": draw(*shape), "scale": draw(c, low=0.5, high=1.5), "bias": draw(c),
                "mean": draw(c, gradient=not training), "variance": draw(c, low=0.5, high=2, gradient=not training)}

    def function(x, scale, bias, mean, variance):
        if not training:
            y = (x.movedim(1, -1) - mean) / torch.sqrt(variance + 1e-3) * scale + bias
            return y.movedim(-1, 1)
        dims = [d for d in range(x.dim()) if d != 1]
        y = F.batch_norm(x, mean.clone(), variance.clone(), scale, bias, True, 0.0, 1e-3)
        with torch.no_grad():
            running = [momentum * old + (1 - momentum) * new
                       for old, new in [(mean, x.mean(dims)), (variance, x.var(dims, unbiased=False))]]
        return (y, *running)

    return Case(f"BatchNormalization, {name}", "BatchNormalization", make, function,
                {"epsilon": 1e-3, "momentum": momentum, "training_mode": int(training)})


def group_norm(name, shape, groups):
    c = shape[1]
    return Case(f"GroupNormalization, {name}", "GroupNormalization",
                lambda: {"x": draw(*shape), "scale": draw(c, low=0.5, high=1.5), "bias": draw(c)},
                lambda x, scale, bias: F.group_norm(x, groups, scale, bias, 1e-3), {"num_groups": groups, "epsilon": 1e-3})


CLASS_LABELS = [[0, 2, 1], [3, 1, 0]]


def label_loss(name, op, function, weighted=False, ignore=None, reduction="mean"):
    def make():
        inputs = {"x": draw(2, 4, 3, low=-3, high=3), "labels": ints(CLASS_LABELS)}
        return {**inputs, "weights": draw(4, low=0.5, high=2, gradient=False)} if weighted else inputs

    attributes = {"reduction": reduction, **({} if ignore is None else {"ignore_index": ignore})}
    return Case(f"{op}, {name}", op, make,
                lambda x, y, w=None: function(x, y, weight=w, ignore_index=-100 if ignore is None else ignore, reduction=reduction),
                attributes)


def label_losses(op, function):
    return [
        label_loss("mean", op, function),
        label_loss("sum, weighted", op, function, weighted=True, reduction="sum"),
        label_loss("mean, weighted, ignored", op, function, weighted=True, ignore=1),
        label_loss("each, ignored", op, function, ignore=0, reduction="none"),
    ]


def rotated(x, cosines, sines, interleaved, size):
    """The pairs of the first `size` elements of x (B, heads, T, all), turned."""
    turned, rest = x[..., :size], x[..., size:]
    c, s = cosines.unsqueeze(1), sines.unsqueeze(1)
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (a * c - b * s, a * s + b * c)
    joined = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([joined, rest], -1)


def rotary(name, interleaved, size=6):
    return Case(f"RotaryEmbedding, {name}", "RotaryEmbedding",
                lambda: {"x": draw(2, 2, 3, 6), "cos": draw(2, 3, size // 2, gradient=False), "sin": draw(2, 3, size // 2, gradient=False)},
                lambda x, c, s: rotated(x, c, s, interleaved, size),
                {"interleaved": int(interleaved), **({} if size == 6 else {"rotary_embedding_dim": size, "num_heads": 2})})


def rotary_flat(x, cosines, sines, ids):
    heads = x.reshape(2, 3, 2, 4).transpose(1, 2)
    return rotated(heads, cosines[ids], sines[ids], False, 4).transpose(1, 2).reshape(2, 3, 8)


def attend(q, k, v, mask=None, causal=False):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return F.softmax(scores, -1) @ v


def attention(name, q, k, v, mask=None, causal=False):
    def make():
        return {"q": draw(*q), "k": draw(*k), "v": draw(*v), **({} if mask is None else {"mask": mask()})}

    return Case(f"Attention, {name}", "Attention", make, lambda q, k, v, m=None: attend(q, k, v, m, causal),
                {"is_causal": int(causal)})


def attention_flat(q, k, v):
    parts = [x.reshape(2, 3, -1, 2).transpose(1, 2) for x in (q, k, v)]
    return attend(*parts).transpose(1, 2).reshape(2, 3, -1)


CASES = [
    *[softmax("Softmax", F.softmax, axis, 2, 3, 4) for axis in (-1, 0, 1)],
    *[softmax("LogSoftmax", F.log_softmax, axis, 2, 3, 4) for axis in (-1, 0, 1)],
    large("Softmax", F.softmax),
    large("LogSoftmax", F.log_softmax),
    layer_norm("last dim", (2, 3, 4), -1),
    layer_norm("two dims", (2, 3, 4), 1),
    layer_norm("no bias", (3, 5), -1, bias=False),
    layer_norm("many rows", (66, 3), -1),
    layer_norm("large mean", (3, 5), -1, low=50.0, epsilon=1e-3, tolerance=2e-4),
    Case("LayerNormalization, statistics", "LayerNormalization",
         lambda: {"x": draw(3, 4), "scale": draw(4)}, with_statistics, {"axis": -1}),
    rms_norm("last dim", (2, 3, 4), -1),
    rms_norm("two dims", (2, 3, 4), 1),
    batch_norm("inference", (2, 3, 4), False),
    batch_norm("inference, images", (2, 3, 2, 2), False),
    batch_norm("inference, vectors", (4, 3), False),
    batch_norm("training", (2, 3, 4), True),
    batch_norm("training, images", (2, 3, 2, 3), True, momentum=0.7),
    batch_norm("training, vectors", (5, 3), True),
    group_norm("two groups", (2, 4, 3), 2),
    group_norm("images", (1, 6, 2, 2), 3),
    Case("InstanceNormalization", "InstanceNormalization",
         lambda: {"x": draw(2, 3, 2, 3), "scale": draw(3, low=0.5, high=1.5), "bias": draw(3)},
         lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=1e-3), {"epsilon": 1e-3}),
    Case("LpNormalization, p 2", "LpNormalization", lambda: {"x": draw(2, 3, 2)}, lambda x: F.normalize(x, dim=1), {"p": 2, "axis": 1}),
    Case("LpNormalization, p 1", "LpNormalization", lambda: {"x": draw(2, 4)}, lambda x: F.normalize(x, p=1.0, dim=-1), {"p": 1}),
    *[Case(f"LRN, size {size}", "LRN", lambda: {"x": draw(2, 5, 2, 2)}, lambda x, size=size: F.local_response_norm(x, size, 0.8, 0.6, 1.5),
           {"size": size, "alpha": 0.8, "beta": 0.6, "bias": 1.5}) for size in (3, 5)],
    *label_losses("SoftmaxCrossEntropyLoss", F.cross_entropy),
    *label_losses("NegativeLogLikelihoodLoss", F.nll_loss),
    rotary("halves", False),
    rotary("pairs", True),
    rotary("a part", False, 4),
    Case("RotaryEmbedding, positions", "RotaryEmbedding",
         lambda: {"x": draw(2, 3, 8), "cos": draw(6, 2, gradient=False), "sin": draw(6, 2, gradient=False),
                  "ids": ints([[0, 1, 2], [5, 4, 3]])}, rotary_flat, {"num_heads": 2}),
    attention("plain", (2, 2, 3, 4), (2, 2, 4, 4), (2, 2, 4, 3)),
    attention("causal", (1, 2, 4, 3), (1, 2, 4, 3), (1, 2, 4, 3), causal=True),
    attention("shared heads", (1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2), causal=True),
    attention("mask of numbers", (1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 2), lambda: draw(1, 1, 3, 4, gradient=False)),
    attention("mask of bools", (1, 2, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2),
              lambda: bools([[True, False, True], [True, True, False], [False, True, True]])),
    Case("Attention, 3 dims", "Attention", lambda: {"q": draw(2, 3, 8), "k": draw(2, 3, 4), "v": draw(2, 3, 4)},
         lambda q, k, v: attention_flat(q, k, v), {"q_num_heads": 4, "kv_num_heads": 2}),
]
