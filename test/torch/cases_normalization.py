"""Softmax and normalizations."""
import torch
import torch.nn.functional as F

from framework import Case, draw, values

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
]
