"""PyTorch's nn.LSTM as a model of characters: whole training steps (forward, backward, clipping, AdamW).

Sizes come from the environment: D hidden size and width of the embedding, T context, B batch, V vocabulary,
THR threads, R repeats. Prints "tok/s N" of the median step.
"""

import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

DEFAULTS = {"D": 256, "T": 128, "B": 32, "V": 65, "THR": 1, "R": 9}
D, T, B, V, THR, R = (int(os.environ.get(name, value)) for name, value in DEFAULTS.items())
torch.set_num_threads(THR)


class CharLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.lstm = nn.LSTM(D, D, batch_first=True)
        self.head = nn.Linear(D, V)

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0])


model = CharLstm()
optimizer = torch.optim.AdamW(model.parameters())
ids, targets = torch.randint(V, (2, B, T))


def step():
    optimizer.zero_grad()
    loss = F.cross_entropy(model(ids).view(-1, V), targets.view(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


for _ in range(3):
    step()
times = []
for _ in range(R):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
print(f"torch {torch.__version__} tok/s {B * T / sorted(times)[len(times) // 2]:.0f}")
