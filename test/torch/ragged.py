"""Losses whose number of labels differs from sample to sample, by PyTorch, in float64, for test/torch/ragged.test.ts.

Run: OMP_NUM_THREADS=1 python3 test/torch/ragged.py > test/torch/fixtures/ragged.json

A small model, an embedding and two layers, over sequences of other lengths each. Weights and data come from formulas that the
test repeats, so that only results are kept: the loss of the whole batch of 8 at once, and gradients by name.
"""
import json
import math

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
SAMPLES, LENGTH, VOCABULARY, WIDTH, HIDDEN, CLASSES = 8, 6, 7, 4, 5, 5
IGNORED = -100
# How many places of each sample have a label: none in two of them, all in one.
LENGTHS = [2, 0, 6, 1, 3, 0, 5, 4]


def parameters():
    shapes = {
        "table.weight": (VOCABULARY, WIDTH),
        "inner.weight": (WIDTH, HIDDEN),
        "inner.bias": (HIDDEN,),
        "outer.weight": (HIDDEN, CLASSES),
        "outer.bias": (CLASSES,),
    }
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        values = [0.5 * math.sin(0.7 * i + number) for i in range(math.prod(shape))]
        made[name] = torch.tensor(values).reshape(shape).requires_grad_()
    return made


COUNT = SAMPLES * LENGTH
ids = torch.tensor([(3 * i + i // 5) % VOCABULARY for i in range(COUNT)]).reshape(SAMPLES, LENGTH)
lengths = torch.tensor(LENGTHS)
present = torch.arange(LENGTH).unsqueeze(0) < lengths.unsqueeze(1)
labels = torch.tensor([(2 * i + i // 7) % CLASSES for i in range(COUNT)]).reshape(SAMPLES, LENGTH)
labels = torch.where(present, labels, IGNORED)
mask = present.double()
targets = torch.tensor([math.cos(0.9 * i) for i in range(COUNT * CLASSES)]).reshape(SAMPLES, LENGTH, CLASSES)
class_weights = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5])


def flat(x):
    return x.reshape(COUNT, CLASSES)


def cross_entropy(x, **options):
    return F.cross_entropy(flat(x), labels.reshape(COUNT), ignore_index=IGNORED, **options)


def masked_mse(x):
    return (((x - targets) ** 2).mean(-1) * mask).sum() / mask.sum()


def mean_of_lengths(x):
    """The mean over the places of each sample that has any, then over those samples."""
    each = (F.smooth_l1_loss(x, targets, reduction="none").mean(-1) * mask).sum(1)
    return (each / lengths.clamp(min=1)).sum() / (lengths > 0).sum()


def binary(x):
    loss = F.binary_cross_entropy_with_logits(x, targets.abs(), reduction="none")
    weights = mask.unsqueeze(-1)
    return (loss * weights).sum() / (weights.sum() * CLASSES)


def penalty(p):
    return 0.1 * (p["outer.weight"] ** 2).sum()


LOSSES = {
    "cross-entropy": lambda x, p: cross_entropy(x),
    "cross-entropy, smoothed": lambda x, p: cross_entropy(x, label_smoothing=0.2),
    "cross-entropy, class weights": lambda x, p: cross_entropy(x, weight=class_weights),
    "cross-entropy, sum": lambda x, p: cross_entropy(x, reduction="sum"),
    "masked mse": lambda x, p: masked_mse(x),
    "a mean over lengths": lambda x, p: mean_of_lengths(x),
    "binary cross-entropy": lambda x, p: binary(x),
    "two tasks": lambda x, p: cross_entropy(x) + 0.5 * masked_mse(x),
    "labels and a penalty": lambda x, p: cross_entropy(x) + penalty(p),
    "perplexity": lambda x, p: torch.exp(cross_entropy(x)),
}


def run(loss):
    p = parameters()
    inner = torch.tanh(p["table.weight"][ids] @ p["inner.weight"] + p["inner.bias"])
    value = loss(inner @ p["outer.weight"] + p["outer.bias"], p)
    value.backward()
    gradients = {name: [float(f"{g:.12g}") for g in t.grad.reshape(-1).tolist()] for name, t in p.items()}
    return {"loss": float(f"{value.item():.12g}"), "gradients": gradients}


lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(run(loss), separators=(',', ':'))}" for name, loss in LOSSES.items())
print(f'{{"torch":"{torch.__version__}","losses":{{\n{lines}\n}}}}')
