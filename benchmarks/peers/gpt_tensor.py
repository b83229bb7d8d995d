"""PyTorch's tensor parallelism (parallelize_module) over Gloo: whole training steps of a GPT on several processes of one thread.

Sizes come from the environment: L layers, D width, H heads, T context, B batch, V vocabulary, W processes,
R repeats. Prints "tok/s N". With RANK and MEETING (a file that all see), this is one of the processes; without,
it starts all of them.
"""

import os
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

DEFAULTS = {"L": 6, "D": 384, "H": 6, "T": 256, "B": 8, "V": 65, "W": 2, "R": 5}
L, D, H, T, B, V, W, R = (int(os.environ.get(name, value)) for name, value in DEFAULTS.items())


class Block(nn.Module):
    """Queries, keys and values are layers of their own: parallelize_module cuts columns, not heads of one matrix."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.q, self.k, self.v, self.out = (nn.Linear(D, D) for _ in range(4))
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def attend(self, x):
        q, k, v = (layer(x).view(x.shape[0], T, -1, D // H).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(x.shape[0], T, -1))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(V, D)
        self.positions = nn.Parameter(torch.randn(T, D) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(L)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.positions)))


PLAN = {name: ColwiseParallel() for name in ("q", "k", "v", "up")} | {
    name: RowwiseParallel() for name in ("out", "down")
}


def clip(parameters):
    """As clip_grad_norm_ with 1, which does not take a mixture of tensors and distributed tensors."""
    squares = []
    for parameter in parameters:
        norm = torch.linalg.vector_norm(parameter.grad)
        squares.append((norm.full_tensor() if isinstance(norm, DTensor) else norm) ** 2)
    scale = torch.clamp(1 / (torch.stack(squares).sum().sqrt() + 1e-6), max=1)
    for parameter in parameters:
        gradient = parameter.grad
        (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(scale)


def work(rank, meeting):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=W)
    torch.manual_seed(1)
    model = Gpt()
    mesh = init_device_mesh("cpu", (W,))
    for block in model.blocks:
        parallelize_module(block, mesh, PLAN)
    parameters = list(model.parameters())
    divided = [p for p in parameters if isinstance(p, DTensor)]
    whole = [p for p in parameters if not isinstance(p, DTensor)]
    optimizers = [torch.optim.AdamW(group, foreach=True) for group in (divided, whole)]
    ids, targets = (torch.randint(0, V, (B, T)) for _ in range(2))

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids).view(-1, V), targets.view(-1)).backward()
        clip(parameters)
        for optimizer in optimizers:
            optimizer.step()

    for _ in range(2):
        step()
    times = []
    for _ in range(R):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    if rank == 0:
        times.sort()
        print("tok/s", round(B * T / times[len(times) // 2]))
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), os.environ["MEETING"])
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, args=(os.path.join(folder, "meeting"),), nprocs=W)
