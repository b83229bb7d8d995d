"""Convolutions, pools and resizing."""
import torch
import torch.nn.functional as F

from framework import Case, const, draw, values


def conv(name, x, w, bias=False, stride=1, dilation=1, pads=None, group=1):
    dims = len(x) - 2
    pads = pads or [0] * (2 * dims)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    # PyTorch pads from the last dim on.
    around = [p for i in reversed(range(dims)) for p in (pads[i], pads[i + dims])]
    inputs = {"x": x, "w": w, **({"b": (w[0],)} if bias else {})}
    return Case(f"Conv, {name}", "Conv", lambda: {n: draw(*s) for n, s in inputs.items()},
                lambda x, w, *b: function(F.pad(x, around), w, *b, stride=stride, dilation=dilation, groups=group),
                {"strides": [stride] * dims, "dilations": [dilation] * dims, "pads": pads, "group": group})


def conv_transpose(name, x, w, bias=False, stride=1, dilation=1, padding=0, more=0, group=1):
    dims = len(x) - 2
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[dims]
    inputs = {"x": x, "w": w, **({"b": (w[1] * group,)} if bias else {})}
    return Case(f"ConvTranspose, {name}", "ConvTranspose", lambda: {n: draw(*s) for n, s in inputs.items()},
                lambda x, w, *b: function(x, w, *b, stride=stride, padding=padding, output_padding=more,
                                          dilation=dilation, groups=group),
                {"strides": [stride] * dims, "dilations": [dilation] * dims, "pads": [padding] * (2 * dims),
                 "output_padding": [more] * dims, "group": group})


def max_pool(name, x, kernel, stride, padding=0, dilation=1, ceil=False):
    dims = len(x) - 2
    function = {1: F.max_pool1d, 2: F.max_pool2d}[dims]
    return Case(f"MaxPool, {name}", "MaxPool", lambda: {"x": draw(*x)},
                lambda x: function(x, kernel, stride, padding, dilation, ceil),
                {"kernel_shape": [kernel] * dims, "strides": [stride] * dims, "pads": [padding] * (2 * dims),
                 "dilations": [dilation] * dims, "ceil_mode": int(ceil)})


def average_pool(name, x, kernel, stride, padding=0, ceil=False, with_pad=False):
    dims = len(x) - 2
    function = {1: F.avg_pool1d, 2: F.avg_pool2d}[dims]
    return Case(f"AveragePool, {name}", "AveragePool", lambda: {"x": draw(*x)},
                lambda x: function(x, kernel, stride, padding, ceil, with_pad),
                {"kernel_shape": [kernel] * dims, "strides": [stride] * dims, "pads": [padding] * (2 * dims),
                 "ceil_mode": int(ceil), "count_include_pad": int(with_pad)})


def resize(name, x, sizes, mode="bilinear", corners=False, onnx=None, engine=None):
    """`sizes` of the spatial dims; PyTorch has them as (N, C) and these."""
    attributes = {"mode": {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"}.get(mode, "linear"),
                  "coordinate_transformation_mode": "align_corners" if corners else "half_pixel", **(onnx or {})}
    more = {} if mode.startswith("nearest") else {"align_corners": corners}
    return Case(f"Resize, {name}", "Resize",
                lambda: {"x": draw(*x), "roi": None, "scales": None, "sizes": const([*x[:2], *sizes])},
                lambda x, *_: F.interpolate(x, sizes, mode=mode, **more), attributes, engine=engine)


NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
EXACT = {"nearest_mode": "round_prefer_ceil"}

CASES = [
    conv("1-d", (2, 3, 7), (4, 3, 3), bias=True),
    conv("1-d, causal, dilated", (1, 2, 8), (2, 2, 3), dilation=2, pads=[4, 0]),
    conv("2-d", (2, 2, 5, 6), (3, 2, 3, 3), bias=True, pads=[1, 1, 1, 1]),
    conv("2-d, strides that leave a rest", (1, 2, 6, 8), (3, 2, 3, 3), stride=2),
    conv("2-d, stride 3, rest of 2", (1, 1, 6, 5), (2, 1, 1, 1), stride=3),
    conv("2-d, strides and pads", (2, 2, 7, 6), (3, 2, 3, 3), stride=2, pads=[1, 0, 2, 1]),
    conv("2-d, dilated", (1, 2, 7, 7), (2, 2, 3, 3), dilation=2, pads=[1, 2, 0, 1]),
    conv("2-d, strides and dilations", (1, 2, 9, 8), (2, 2, 3, 2), stride=2, dilation=2, pads=[1, 1, 1, 1]),
    conv("groups", (2, 4, 5, 5), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
    conv("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), bias=True, group=3, stride=2, pads=[1, 1, 1, 1]),
    conv("1 by 1", (2, 3, 4, 4), (2, 3, 1, 1), bias=True),
    conv("patches", (2, 3, 6, 6), (4, 3, 3, 3), stride=3),
    conv("many channels", (1, 8, 5, 4), (2, 8, 3, 2), stride=2, pads=[1, 1, 2, 0]),
    conv("3-d", (1, 2, 3, 4, 3), (2, 2, 2, 2, 2)),
    conv_transpose("1-d", (2, 3, 4), (3, 2, 3), bias=True, stride=2),
    conv_transpose("2-d", (1, 2, 3, 4), (2, 3, 3, 3), bias=True, padding=1),
    conv_transpose("2-d, strides", (2, 2, 3, 3), (2, 2, 4, 4), stride=2, padding=1),
    conv_transpose("2-d, output padding", (1, 2, 3, 3), (2, 2, 3, 3), stride=2, padding=1, more=1),
    conv_transpose("2-d, dilated", (1, 2, 3, 3), (2, 2, 2, 2), dilation=2, stride=2),
    conv_transpose("groups", (1, 4, 3, 3), (4, 2, 3, 3), stride=2, padding=1, group=2),
    max_pool("1-d", (2, 2, 7), 2, 2),
    max_pool("2-d", (1, 2, 4, 6), 2, 2),
    max_pool("overlapping windows", (1, 2, 6, 5), 3, 1),
    max_pool("overlapping, padded", (2, 1, 7, 7), 3, 2, padding=1),
    max_pool("dilated", (1, 1, 7, 6), 2, 1, dilation=2),
    max_pool("ceil", (1, 1, 6, 5), 3, 2, ceil=True),
    Case("MaxPool of equal elements", "MaxPool",
         lambda: {"x": values([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, -1.0, 0.0, 2.0, -1.0, -1.0], (1, 1, 4, 4))},
         lambda x: F.max_pool2d(x, 2, 1), {"kernel_shape": [2, 2], "strides": [1, 1]}),
    average_pool("1-d", (2, 2, 6), 2, 2),
    average_pool("tiles", (1, 2, 4, 6), 2, 2),
    average_pool("overlapping", (1, 2, 6, 5), 3, 1),
    average_pool("padded", (1, 2, 6, 5), 3, 2, padding=1),
    average_pool("padding counts", (1, 2, 6, 5), 3, 2, padding=1, with_pad=True),
    average_pool("ceil", (1, 1, 6, 5), 2, 3, ceil=True),
    average_pool("ceil, padding counts", (1, 1, 6, 7), 3, 2, padding=1, ceil=True, with_pad=True),
    Case("GlobalAveragePool", "GlobalAveragePool", lambda: {"x": draw(2, 3, 2, 3)}, lambda x: x.mean((2, 3), keepdim=True)),
    Case("GlobalMaxPool", "GlobalMaxPool", lambda: {"x": draw(2, 3, 2, 3)}, lambda x: F.adaptive_max_pool2d(x, 1)),
    Case("LpPool", "LpPool", lambda: {"x": draw(2, 2, 4, 5)}, lambda x: F.lp_pool2d(x, 2.0, 2, 2),
         {"kernel_shape": [2, 2], "strides": [2, 2], "p": 2}),
    resize("linear, larger", (1, 2, 3, 4), (6, 7)),
    resize("linear, smaller", (1, 2, 6, 5), (3, 2)),
    resize("linear, aligned corners", (2, 1, 3, 4), (5, 6), corners=True),
    resize("linear, 1-d", (1, 2, 4), (7,), mode="linear"),
    resize("nearest, twice", (1, 2, 3, 2), (6, 4), mode="nearest", onnx=NEAREST),
    resize("nearest, not whole", (1, 1, 3, 4), (5, 6), mode="nearest", onnx=NEAREST),
    resize("nearest, smaller", (1, 1, 6, 5), (3, 3), mode="nearest", onnx=NEAREST),
    resize("nearest of centers", (1, 1, 3, 4), (5, 6), mode="nearest-exact", onnx=EXACT),
    resize("cubic", (1, 1, 4, 5), (7, 8), mode="bicubic"),
    resize("cubic, smaller, aligned corners", (1, 1, 5, 6), (3, 4), mode="bicubic", corners=True),
]
