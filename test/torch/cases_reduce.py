"""Reductions over some dims and over all, with ties, zeros and large arguments."""
import torch

from framework import Case, const, draw, values


def reduction(op, function, low=-2.0, high=2.0, special=()):
    """`function` takes x, a list of dims and whether they are kept."""
    def case(name, axes, keep):
        def inputs():
            x = draw(2, 3, 4, low=low, high=high)
            return {"x": x} if axes is None else {"x": x, "axes": const(axes)}
        dims = [0, 1, 2] if axes is None else axes
        return Case(f"{op}, {name}", op, inputs, lambda x, *_: function(x, dims, keep), {"keepdims": int(keep)})
    cases = [
        case("all dims", None, False),
        case("last dim", [-1], True),
        case("first dim", [0], False),
        case("dims that are not neighbours", [0, 2], False),
        case("dims that are neighbours, kept", [1, 2], True),
    ]
    for name, data in special:
        cases.append(Case(f"{op}, {name}", op, lambda data=data: {"x": values(data), "axes": const([1])},
                          lambda x, _: function(x, [1], True)))
    return cases


def product(x, dims, keep):
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        x = torch.prod(x, dim, keepdim=keep)
    return x


TIES = [[1.0, 3.0, 3.0], [-2.0, -2.0, -2.0], [0.0, 0.0, 1.0]]
ZEROS = [[1.5, 0.0, -2.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.0, -2.0, 3.0]]
LARGE = [[800.0, 800.5, -800.0], [-800.0, -801.0, -800.0], [0.0, 0.0, 0.0]]


def arg(op, function):
    cases = []
    for axis in (0, -1):
        for keep in (0, 1):
            cases.append(Case(f"{op}, axis {axis}, keepdims {keep}", op, lambda: {"x": draw(3, 4)},
                              lambda x, axis=axis, keep=keep: function(x, axis, keepdim=bool(keep)),
                              {"axis": axis, "keepdims": keep}))
    return cases


CASES = [
    *reduction("ReduceSum", lambda x, d, k: torch.sum(x, d, keepdim=k)),
    *reduction("ReduceMean", lambda x, d, k: torch.mean(x, d, keepdim=k)),
    *reduction("ReduceMax", lambda x, d, k: torch.amax(x, d, keepdim=k), special=[("ties", TIES)]),
    *reduction("ReduceMin", lambda x, d, k: torch.amin(x, d, keepdim=k), special=[("ties", TIES)]),
    *reduction("ReduceProd", product, special=[("zeros", ZEROS)]),
    *reduction("ReduceL1", lambda x, d, k: x.abs().sum(d, keepdim=k), special=[("zeros", ZEROS)]),
    *reduction("ReduceL2", lambda x, d, k: torch.linalg.vector_norm(x, 2, d, k), special=[("zeros", ZEROS)]),
    *reduction("ReduceSumSquare", lambda x, d, k: (x * x).sum(d, keepdim=k)),
    *reduction("ReduceLogSum", lambda x, d, k: x.sum(d, keepdim=k).log(), 0.2, 2),
    *reduction("ReduceLogSumExp", lambda x, d, k: torch.logsumexp(x, d, k), special=[("large arguments", LARGE)]),
    *arg("ArgMax", torch.argmax),
    *arg("ArgMin", torch.argmin),
]
