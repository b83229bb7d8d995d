"""Reading between elements: at coordinates that lie inside, on the edge and far outside."""
import torch
import torch.nn.functional as F

from framework import Case, draw

MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def grid_sample(mode, padding, aligned, sizes=(3, 4), places=(2, 2)):
    far = 1.2 if padding == "zeros" else 2.5
    return Case(f"GridSample, {mode}, {padding}, aligned {aligned}, {len(sizes)} dims", "GridSample",
                lambda: {"x": draw(2, 2, *sizes), "grid": draw(2, *places, len(sizes), low=-far, high=far)},
                lambda x, grid: F.grid_sample(x, grid, MODES[mode], padding, bool(aligned)),
                {"mode": mode, "padding_mode": padding, "align_corners": aligned})


CASES = [
    *[grid_sample(mode, padding, aligned) for mode in MODES for padding in ("zeros", "border", "reflection") for aligned in (0, 1)],
    *[grid_sample(mode, padding, aligned, (2, 3, 2), (2, 1, 2))
      for mode in ("linear", "nearest") for padding, aligned in (("zeros", 0), ("border", 1), ("reflection", 0))],
    Case("GridSample, one element along a dim", "GridSample",
         lambda: {"x": draw(1, 2, 1, 3), "grid": draw(1, 2, 2, 2, low=-1.5, high=1.5)},
         lambda x, grid: F.grid_sample(x, grid, "bilinear", "reflection", True),
         {"padding_mode": "reflection", "align_corners": 1}),
]
