"""Shapes and places: what moves elements and computes nothing."""
import torch
import torch.nn.functional as F

from framework import Case, const, draw


def pads(name, shape, before, after, mode, torch_mode):
    """F.pad counts from the last dim; ONNX lists all befores, then all afters."""
    pairs = [size for pair in reversed(list(zip(before, after))) for size in pair]
    if mode != "constant":
        # PyTorch pads the last dims only, and wants one or two dims before them.
        pairs = pairs[: 2 * (len(shape) - 2)]
    return Case(f"Pad, {name}", "Pad", lambda: {"x": draw(*shape), "pads": const([*before, *after])},
                lambda x, _: F.pad(x, pairs, mode=torch_mode), {"mode": mode})


def indexed(name, shape, starts, ends, axes, steps, function):
    return Case(f"Slice, {name}", "Slice",
                lambda: {"x": draw(*shape), "starts": const(starts), "ends": const(ends), "axes": const(axes), "steps": const(steps)},
                lambda x, *_: function(x))


CASES = [
    Case("Reshape", "Reshape", lambda: {"x": draw(2, 3, 4), "shape": const([0, -1])}, lambda x, _: x.reshape(2, 12)),
    Case("Flatten", "Flatten", lambda: {"x": draw(2, 3, 4)}, lambda x: x.reshape(6, 4), {"axis": 2}),
    Case("Flatten, axis 0", "Flatten", lambda: {"x": draw(2, 3)}, lambda x: x.reshape(1, 6), {"axis": 0}),
    Case("Squeeze", "Squeeze", lambda: {"x": draw(1, 3, 1), "axes": const([-1])}, lambda x, _: x.squeeze(-1)),
    Case("Squeeze, all", "Squeeze", lambda: {"x": draw(1, 3, 1)}, lambda x: x.squeeze()),
    Case("Unsqueeze", "Unsqueeze", lambda: {"x": draw(2, 3), "axes": const([0, -1])}, lambda x, _: x[None, ..., None]),
    Case("Transpose", "Transpose", lambda: {"x": draw(2, 3, 4)}, lambda x: x.permute(2, 0, 1), {"perm": [2, 0, 1]}),
    Case("Transpose, reversed", "Transpose", lambda: {"x": draw(2, 3, 4)}, lambda x: x.permute(2, 1, 0)),
    Case("Concat", "Concat", lambda: {"a": draw(2, 1), "b": draw(2, 3), "c": draw(2, 2)}, lambda *xs: torch.cat(xs, 1), {"axis": -1}),
    Case("Split, sizes", "Split", lambda: {"x": draw(5, 2), "sizes": const([1, 3, 1])}, lambda x, _: x.split([1, 3, 1])),
    Case("Split, unequal pieces", "Split", lambda: {"x": draw(2, 5)}, lambda x: x.split(2, 1), {"axis": 1, "num_outputs": 3}),
    indexed("one dim", (4, 5), [1], [-1], [1], [1], lambda x: x[:, 1:-1]),
    indexed("steps", (7, 5), [1, 0], [100, 5], [0, 1], [3, 2], lambda x: x[1::3, ::2]),
    indexed("backwards", (7, 3), [-1], [-100], [0], [-1], lambda x: x.flip(0)),
    indexed("backwards in steps", (7, 3), [5], [0], [0], [-2], lambda x: x[[5, 3, 1]]),
    pads("constant", (2, 3), (1, 0), (2, 1), "constant", "constant"),
    pads("cropping", (4, 3), (-1, 1), (-2, -1), "constant", "constant"),
    pads("reflect", (1, 2, 3, 4), (0, 0, 1, 3), (0, 0, 2, 2), "reflect", "reflect"),
    pads("edge", (1, 2, 3, 4), (0, 0, 1, 5), (0, 0, 2, 0), "edge", "replicate"),
    pads("wrap", (1, 2, 3, 4), (0, 0, 1, 3), (0, 0, 2, 4), "wrap", "circular"),
    Case("Expand", "Expand", lambda: {"x": draw(3, 1), "shape": const([2, 1, 4])}, lambda x, _: x.expand(2, 3, 4)),
    Case("Tile", "Tile", lambda: {"x": draw(2, 3), "repeats": const([2, 3])}, lambda x, _: x.repeat(2, 3)),
    Case("Trilu, upper", "Trilu", lambda: {"x": draw(2, 3, 4)}, torch.triu),
    Case("Trilu, lower", "Trilu", lambda: {"x": draw(4, 3), "k": const(-1)}, lambda x, _: x.tril(-1), {"upper": 0}),
    Case("DepthToSpace, CRD", "DepthToSpace", lambda: {"x": draw(2, 8, 2, 3)}, lambda x: F.pixel_shuffle(x, 2),
         {"blocksize": 2, "mode": "CRD"}),
    Case("DepthToSpace, DCR", "DepthToSpace", lambda: {"x": draw(1, 8, 2, 3)},
         lambda x: x.reshape(1, 2, 2, 2, 2, 3).permute(0, 3, 4, 1, 5, 2).reshape(1, 2, 4, 6), {"blocksize": 2}),
    Case("SpaceToDepth", "SpaceToDepth", lambda: {"x": draw(1, 2, 4, 6)},
         lambda x: x.reshape(1, 2, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 8, 2, 3), {"blocksize": 2}),
    Case("EyeLike", "EyeLike", lambda: {"x": draw(3, 4, gradient=False)}, lambda x: torch.eye(3, 4, dtype=x.dtype)),
    Case("Range", "Range", lambda: {"start": const(5), "limit": const(-3), "delta": const(-3)}, lambda *_: torch.arange(5, -3, -3)),
    Case("Shape", "Shape", lambda: {"x": draw(2, 3, 4, gradient=False)}, lambda x: torch.tensor([3, 4]), {"start": 1}),
    Case("Size", "Size", lambda: {"x": draw(2, 3, 4, gradient=False)}, lambda x: torch.tensor(24)),
]
