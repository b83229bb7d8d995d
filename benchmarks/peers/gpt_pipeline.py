"""PyTorch's pipeline (torch.distributed.pipelining, 1F1B) over Gloo: whole training steps of a GPT on several processes of one thread.

Sizes come from the environment: L layers, D width, H heads, T context, B batch, V vocabulary, M micro-batches,
W processes, R repeats. Prints "tok/s N". Run without arguments; it starts all processes.
"""

import os
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

DEFAULTS = {"L": 6, "D": 384, "H": 6, "T": 256, "B": 8, "V": 65, "M": 8, "W": 2, "R": 5}
L, D, H, T, B, V, M, W, R = (int(os.environ.get(name, value)) for name, value in DEFAULTS.items())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def attend(self, x):
        parts = self.qkv(x).view(x.shape[0], T, 3, H, D // H).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        return self.out(y.transpose(1, 2).reshape(x.shape[0], T, D))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Stage(nn.Module):
    """Equally many blocks; the first stage has the embeddings, the last the head."""

    def __init__(self, rank):
        super().__init__()
        first, last = rank == 0, rank == W - 1
        self.tokens = nn.Embedding(V, D) if first else None
        self.positions = nn.Parameter(torch.randn(T, D) * 0.02) if first else None
        self.blocks = nn.Sequential(*(Block() for _ in range(L // W)))
        self.norm, self.head = (nn.LayerNorm(D), nn.Linear(D, V)) if last else (None, None)

    def forward(self, x):
        if self.tokens is not None:
            x = self.tokens(x) + self.positions
        x = self.blocks(x)
        return x if self.head is None else self.head(self.norm(x))


def loss_of(logits, targets):
    return F.cross_entropy(logits.reshape(-1, V), targets.reshape(-1))


def clip(parameters):
    """As clip_grad_norm_ with 1, over the gradients of all stages."""
    squares = torch.stack([torch.linalg.vector_norm(p.grad) ** 2 for p in parameters]).sum()
    dist.all_reduce(squares)
    scale = torch.clamp(1 / (squares.sqrt() + 1e-6), max=1)
    for parameter in parameters:
        parameter.grad.mul_(scale)


def work(rank, meeting):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=W)
    torch.manual_seed(1)
    module = Stage(rank)
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, foreach=True)
    stage = PipelineStage(module, rank, W, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=M, loss_fn=loss_of)
    ids, targets = (torch.randint(0, V, (B, T)) for _ in range(2))

    def step():
        optimizer.zero_grad(set_to_none=True)
        inputs = (ids,) if rank == 0 else ()
        wanted = {"target": targets, "losses": []} if rank == W - 1 else {}
        schedule.step(*inputs, **wanted)
        clip(parameters)
        optimizer.step()

    for _ in range(2):
        step()
    times = []
    for _ in range(R):
        dist.barrier()
        start = time.perf_counter()
        step()
        dist.barrier()
        times.append(time.perf_counter() - start)
    if rank == 0:
        times.sort()
        print("tok/s", round(B * T / times[len(times) // 2]))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, args=(os.path.join(folder, "meeting"),), nprocs=W)
