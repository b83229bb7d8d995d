"""Matrix products."""
import torch

from framework import Case, draw


def matmul(name, a, b):
    return Case(f"MatMul, {name}", "MatMul", lambda: {"a": draw(*a), "b": draw(*b)}, torch.matmul)


def gemm(name, a, b, c=None, alpha=1.0, beta=1.0, ta=0, tb=0):
    def product(a, b, *c):
        y = alpha * (a.T if ta else a) @ (b.T if tb else b)
        return y + beta * c[0] if c else y

    attributes = {"alpha": alpha, "beta": beta, "transA": ta, "transB": tb}
    inputs = {"a": a, "b": b, **({} if c is None else {"c": c})}
    return Case(f"Gemm, {name}", "Gemm", lambda: {n: draw(*s) for n, s in inputs.items()}, product, attributes)


def einsum(equation, *shapes):
    return Case(f"Einsum, {equation}", "Einsum", lambda: {f"x{i}": draw(*s) for i, s in enumerate(shapes)},
                lambda *xs: torch.einsum(equation, *xs), {"equation": equation})


def fused(name, a, b, ta=0, tb=0, ba=0, bb=0):
    """ONNX Runtime's own product. A moved batch: (rows, batch, columns) instead of (batch, rows, columns)."""
    def plain(x, trans, batch):
        x = x.movedim(0, -2) if batch else x
        return x.transpose(-1, -2) if trans else x

    return Case(f"FusedMatMul, {name}", "com.microsoft::FusedMatMul", lambda: {"a": draw(*a), "b": draw(*b)},
                lambda a, b: 0.5 * plain(a, ta, ba) @ plain(b, tb, bb),
                {"alpha": 0.5, "transA": ta, "transB": tb, "transBatchA": ba, "transBatchB": bb})


CASES = [
    matmul("matrices", (3, 4), (4, 5)),
    matmul("rows times weights", (2, 3, 4), (4, 5)),
    matmul("many rows times weights", (70, 3), (3, 2)),
    matmul("batch", (2, 3, 4), (2, 4, 5)),
    matmul("broadcast batches", (2, 1, 3, 4), (5, 4, 2)),
    matmul("one batch for all", (3, 4), (2, 4, 5)),
    matmul("vector and matrix", (4,), (4, 5)),
    matmul("matrix and vector", (3, 4), (4,)),
    matmul("batch and vector", (2, 3, 4), (4,)),
    matmul("two vectors", (4,), (4,)),
    gemm("plain", (3, 4), (4, 2)),
    gemm("bias", (3, 4), (4, 2), (2,)),
    gemm("bias of many rows", (70, 3), (3, 2), (2,)),
    gemm("column bias", (3, 4), (4, 2), (3, 1), beta=0.5),
    gemm("scalar bias", (3, 4), (4, 2), (), beta=2.0),
    gemm("full bias", (3, 4), (4, 2), (3, 2)),
    gemm("A transposed", (4, 3), (4, 2), (2,), alpha=0.5, ta=1),
    gemm("B transposed", (3, 4), (2, 4), (2,), alpha=-1.5, tb=1),
    gemm("both transposed", (4, 3), (2, 4), (1, 2), alpha=2.0, beta=0.25, ta=1, tb=1),
    einsum("ij->ji", (2, 3)),
    einsum("ijk->k", (2, 3, 4)),
    einsum("ij,jk", (2, 3), (3, 4)),
    einsum("i,j->ij", (2,), (3,)),
    einsum("bij,bkj->bik", (2, 3, 4), (2, 5, 4)),
    einsum("bthd,bshd->bhts", (2, 3, 2, 2), (2, 4, 2, 2)),
    einsum("bhts,bshd->bthd", (2, 2, 3, 4), (2, 4, 2, 2)),
    einsum("...ij,...jk->...ik", (2, 2, 3), (2, 3, 2)),
    einsum("ij,ij->", (2, 3), (2, 3)),
    einsum("ij,jk,kl->il", (2, 3), (3, 2), (2, 4)),
    fused("plain", (2, 3, 4), (2, 4, 2)),
    fused("B transposed", (2, 3, 4), (2, 5, 4), tb=1),
    fused("A transposed", (2, 4, 3), (2, 4, 2), ta=1),
    fused("both transposed", (2, 4, 3), (2, 5, 4), ta=1, tb=1),
    fused("one matrix for all", (2, 3, 4), (5, 4), tb=1),
    fused("batch of A moved", (3, 2, 4), (2, 4, 2), ba=1),
    fused("batch of B moved, B transposed", (2, 3, 4), (5, 2, 4), tb=1, bb=1),
]
