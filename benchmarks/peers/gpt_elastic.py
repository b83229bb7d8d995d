"""Training of a GPT under torchrun, which restarts all processes when one is lost: each step is written to a
checkpoint, and a restarted process continues from the last one.

Sizes as in gpt_ddp.py. CHECKPOINT is the path of the checkpoint. Every process prints "rank R pid P" at its start,
and the first one prints "step N" after each step.
"""

import os

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

from gpt_ddp import B, T, V, Gpt

CHECKPOINT = os.environ["CHECKPOINT"]


def save(model, optimizer, step):
    state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, f"{CHECKPOINT}.new")
    os.replace(f"{CHECKPOINT}.new", CHECKPOINT)


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    print(f"rank {rank} pid {os.getpid()}", flush=True)
    torch.manual_seed(1)
    inner = Gpt()
    found = torch.load(CHECKPOINT) if os.path.exists(CHECKPOINT) else None
    if found is not None:
        inner.load_state_dict(found["model"])
    model = nn.parallel.DistributedDataParallel(inner, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    if found is not None:
        optimizer.load_state_dict(found["optimizer"])
    ids, targets = (torch.randint(0, V, (B // size, T)) for _ in range(2))
    step = 0 if found is None else found["step"]
    while True:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids).view(-1, V), targets.view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        step += 1
        if rank == 0:
            save(model, optimizer, step)
            print(f"step {step}", flush=True)


main()
