"""Reading between elements: at coordinates that lie inside, on the edge and far outside."""
import torch
import torch.nn.functional as F
import torchvision

from framework import Case, const, draw, ints, values

MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def grid_sample(mode, padding, aligned, sizes=(3, 4), places=(2, 2)):
    far = 1.2 if padding == "zeros" else 2.5
    return Case(f"GridSample, {mode}, {padding}, aligned {aligned}, {len(sizes)} dims", "GridSample",
                lambda: {"x": draw(2, 2, *sizes), "grid": draw(2, *places, len(sizes), low=-far, high=far)},
                lambda x, grid: F.grid_sample(x, grid, MODES[mode], padding, bool(aligned)),
                {"mode": mode, "padding_mode": padding, "align_corners": aligned})


BOXES = [[0.5, 0.3, 4.2, 3.9], [-1.5, -1.2, 2.5, 2.2], [2.2, 1.1, 6.5, 5.5], [1.0, 1.0, 1.5, 1.4]]


def roi_align(name, ratio, aligned, scale=1.0):
    def compute(x, boxes, pictures):
        rois = torch.cat([pictures.double()[:, None], boxes], 1)
        return torchvision.ops.roi_align(x, rois, (2, 3), scale, ratio, aligned)
    return Case(f"RoiAlign, {name}", "roiAlign",
                lambda: {"x": draw(2, 2, 4, 5), "boxes": values(BOXES, gradient=False), "pictures": ints([1, 0, 0, 1])},
                compute, {"height": 2, "width": 3, "samples": ratio, "scale": scale, "halfPixel": aligned})


def deform(name, kernel=(2, 2), group=1, moved=1, masked=True, stride=(1, 1), pad=(0, 0), dilation=(1, 1)):
    size = (3, 4)
    places = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in zip(size, pad, dilation, kernel, stride)]
    count = moved * kernel[0] * kernel[1]
    return Case(f"DeformConv, {name}", "DeformConv",
                lambda: {"x": draw(1, 4, *size), "w": draw(2, 4 // group, *kernel), "offsets": draw(1, 2 * count, *places, low=-1.7, high=1.7),
                         "bias": draw(2) if masked else None, "factors": draw(1, count, *places) if masked else None},
                lambda x, w, o, b, m: torchvision.ops.deform_conv2d(x, o, w, b, stride, pad, dilation, m),
                {"kernel_shape": kernel, "group": group, "offset_group": moved, "strides": stride, "pads": [*pad, *pad], "dilations": dilation})


def fold(name, size, kernel, **options):
    ones = torch.ones(1, 1, *size, dtype=torch.float64)
    count = F.unfold(ones, kernel, **options).shape[2]
    pads = options.get("padding", (0, 0))
    return Case(f"Col2Im, {name}", "Col2Im",
                lambda: {"x": draw(2, 2 * kernel[0] * kernel[1], count), "size": const(size), "kernel": const(kernel)},
                lambda x, *_: F.fold(x, size, kernel, **options),
                {"pads": [*pads, *pads], "strides": options.get("stride", (1, 1)), "dilations": options.get("dilation", (1, 1))})


CASES = [
    *[grid_sample(mode, padding, aligned) for mode in MODES for padding in ("zeros", "border", "reflection") for aligned in (0, 1)],
    *[grid_sample(mode, padding, aligned, (2, 3, 2), (2, 1, 2))
      for mode in ("linear", "nearest") for padding, aligned in (("zeros", 0), ("border", 1), ("reflection", 0))],
    Case("GridSample, one element along a dim", "GridSample",
         lambda: {"x": draw(1, 2, 1, 3), "grid": draw(1, 2, 2, 2, low=-1.5, high=1.5)},
         lambda x, grid: F.grid_sample(x, grid, "bilinear", "reflection", True),
         {"padding_mode": "reflection", "align_corners": 1}),
    roi_align("two samples", 2, True),
    roi_align("as many samples as a part is long", 0, True, 1.7),
    roi_align("regions of one element at least", 2, False, 0.5),
    roi_align("regions of one element at least, as many samples as long", 0, False),
    deform("plain", masked=False),
    deform("with factors", pad=(1, 0)),
    deform("groups", group=2, moved=2, stride=(2, 1), pad=(1, 1)),
    deform("dilated", moved=4, dilation=(2, 1), stride=(1, 2)),
    fold("overlapping", (3, 4), (2, 2)),
    fold("strides, pads and dilations", (5, 4), (2, 3), stride=(2, 1), padding=(1, 1), dilation=(2, 1)),
]
