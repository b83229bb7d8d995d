"""PyTorch's DistributedDataParallel over Gloo: whole training steps of a GPT on several processes of one thread.

Sizes come from the environment: L layers, D width, H heads, T context, B batch of all processes together,
V vocabulary, W processes, R repeats. Prints "tok/s N". With RANK and MEETING (a file that all see), this is one
of the processes; without, it starts all of them.
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

DEFAULTS = {"L": 6, "D": 384, "H": 6, "T": 256, "B": 8, "V": 65, "W": 2, "R": 5}
L, D, H, T, B, V, W, R = (int(os.environ.get(name, value)) for name, value in DEFAULTS.items())

FUTURE = torch.ones(T, T, dtype=torch.bool).triu(1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def attend(self, x):
        batch = x.shape[0]
        q, k, v = self.qkv(x).view(batch, T, 3, H, D // H).permute(2, 0, 3, 1, 4)
        if hasattr(F, "scaled_dot_product_attention"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) * (D // H) ** -0.5
            y = scores.masked_fill(FUTURE, float("-inf")).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, T, D))

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


def work(rank, meeting):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=W)
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(Gpt(), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    ids, targets = (torch.randint(0, V, (B // W, T)) for _ in range(2))

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids).view(-1, V), targets.view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()

    for _ in range(2):
        step()
    times = []
    for _ in range(R):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    if rank == 0:
        print("tok/s", round(B * T / sorted(times)[len(times) // 2]))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), os.environ["MEETING"])
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (os.path.join(folder, "meeting"),), nprocs=W)
    sys.exit(0)
