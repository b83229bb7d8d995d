"""Reading and writing by number: numbers that repeat, that count from the end, ties."""
import torch
import torch.nn.functional as F

from framework import Case, const, draw, draw_ints, ints, values


def gather(name, shape, axis, ids, dtype=torch.int64):
    return Case(f"Gather, {name}", "Gather", lambda: {"x": draw(*shape), "ids": ints(ids, dtype)},
                lambda x, i: x.index_select(axis, i.reshape(-1).long() % shape[axis])
                .reshape(*shape[:axis], *i.shape, *shape[axis + 1:]), {"axis": axis})


def scatter(reduction, name, function):
    return Case(f"ScatterElements, {reduction}, {name}", "ScatterElements",
                lambda: {"x": draw(3, 4), "ids": ints([[0, 2, 2, 1], [1, 2, 0, 1]]), "u": draw(2, 4)},
                function, {"axis": 0, "reduction": reduction})


def running(exclusive, reverse):
    def compute(x, _):
        if reverse:
            x = x.flip(1)
        y = x.cumsum(1) - (x if exclusive else 0)
        return y.flip(1) if reverse else y
    return Case(f"CumSum, exclusive {exclusive}, reverse {reverse}", "CumSum", lambda: {"x": draw(2, 4), "axis": const(1)},
                compute, {"exclusive": exclusive, "reverse": reverse})


def hot(ids, off_on):
    depth = F.one_hot(ids % 4, 4).double()
    return off_on[0] * (1 - depth) + off_on[1] * depth


CASES = [
    gather("rows that repeat", (5, 3), 0, [[4, 0, 4], [4, 1, 1]]),
    gather("int32", (5, 3), 0, [2, 2, 2], torch.int32),
    gather("counted from the end", (5, 3), 0, [-1, 4, -5]),
    gather("middle axis", (2, 5, 3), 1, [[0, 3], [3, 3]]),
    gather("last axis", (2, 3, 4), 2, [1, 1, 2]),
    gather("a number", (2, 5, 3), 1, 3),
    gather("a large table", (300, 2), 0, [299, 7, 299, -1]),
    gather("a large table, last axis", (2, 300), 1, [299, 7, 299, -1]),
    Case("GatherElements", "GatherElements", lambda: {"x": draw(3, 4), "ids": ints([[0, 2, 2, 1], [2, 2, 0, 1]])},
         lambda x, i: x.gather(0, i), {"axis": 0}),
    Case("GatherElements, last axis", "GatherElements", lambda: {"x": draw(3, 4), "ids": draw_ints(3, 6, low=0, high=4)},
         lambda x, i: x.gather(1, i), {"axis": -1}),
    Case("GatherND", "GatherND", lambda: {"x": draw(3, 4, 2), "ids": ints([[0, 1], [2, -1], [0, 1]])}, lambda x, i: x[i[:, 0], i[:, 1]]),
    Case("GatherND, one number", "GatherND", lambda: {"x": draw(3, 2), "ids": ints([[[1]], [[1]]])}, lambda x, i: x[i[..., 0]]),
    Case("GatherND, shared dim", "GatherND", lambda: {"x": draw(2, 3, 2), "ids": ints([[[1], [0]], [[2], [2]]])},
         lambda x, i: torch.stack([x[b][i[b, :, 0]] for b in range(2)]), {"batch_dims": 1}),
    Case("ScatterElements, none", "ScatterElements", lambda: {"x": draw(3, 4), "ids": ints([[0, 2, 2, 1], [1, 0, 0, 2]]), "u": draw(2, 4)},
         lambda x, i, u: x.scatter(0, i, u), {"axis": 0}),
    scatter("add", "numbers repeat", lambda x, i, u: x.scatter_add(0, i, u)),
    scatter("max", "numbers repeat", lambda x, i, u: x.scatter_reduce(0, i, u, "amax")),
    scatter("min", "numbers repeat", lambda x, i, u: x.scatter_reduce(0, i, u, "amin")),
    scatter("mul", "numbers repeat", lambda x, i, u: x.scatter_reduce(0, i, u, "prod")),
    Case("ScatterElements, max, ties", "ScatterElements",
         lambda: {"x": values([1.0, 2.0, 0.0]), "ids": ints([0, 0, 1, 2]), "u": values([1.0, 1.0, 1.0, 5.0])},
         lambda x, i, u: x.scatter_reduce(0, i, u, "amax"), {"reduction": "max"}),
    Case("ScatterND, none", "ScatterND", lambda: {"x": draw(4, 3), "ids": ints([[2], [-4]]), "u": draw(2, 3)},
         lambda x, i, u: x.index_put((i[:, 0] % 4,), u)),
    Case("ScatterND, add", "ScatterND", lambda: {"x": draw(3, 2, 2), "ids": ints([[2, 0], [0, 1], [2, 0]]), "u": draw(3, 2)},
         lambda x, i, u: x.index_put((i[:, 0], i[:, 1]), u, accumulate=True), {"reduction": "add"}),
    Case("ScatterND, max", "ScatterND", lambda: {"x": draw(3, 2), "ids": ints([[2], [0], [2]]), "u": draw(3, 2)},
         lambda x, i, u: x.scatter_reduce(0, i.expand(3, 2), u, "amax"), {"reduction": "max"}),
    Case("OneHot", "OneHot", lambda: {"ids": ints([[0, 3], [-1, 1]]), "depth": const(4), "values": draw(2)},
         lambda i, _, v: hot(i, v)),
    *[running(e, r) for e in (0, 1) for r in (0, 1)],
    Case("TopK", "TopK", lambda: {"x": draw(3, 5), "k": const([2])}, lambda x, _: tuple(x.topk(2))),
    Case("TopK, smallest, first axis", "TopK", lambda: {"x": draw(5, 3), "k": const([3])},
         lambda x, _: tuple(x.topk(3, 0, largest=False)), {"axis": 0, "largest": 0}),
    Case("ReverseSequence", "ReverseSequence", lambda: {"x": draw(4, 2), "lengths": ints([2, 4])},
         lambda x, _: torch.stack([x[[1, 0, 2, 3], 0], x[[3, 2, 1, 0], 1]], 1)),
]
