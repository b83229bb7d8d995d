"""Loss and gradients of two small GPTs by PyTorch, in float64, for test/torch/gpt.test.ts.

Run: OMP_NUM_THREADS=1 python3 test/torch/gpt.py > test/torch/fixtures/gpt.json   (made with PyTorch 1.13)
Weights and ids come from a formula that the test repeats, so that only results are kept.
"""
import json
import math

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY, BATCH = 2, 8, 4, 5, 11, 3


class Weights:
    """Parameters in order of declaration, numbered from 0."""

    def __init__(self):
        self.all = {}

    def __call__(self, name, *shape):
        if name not in self.all:
            count = math.prod(shape)
            number = len(self.all)
            values = [0.3 * math.sin(0.7 * i + number) for i in range(count)]
            if "norm" in name and name.endswith("weight"):
                values = [1 + v for v in values]
            self.all[name] = torch.tensor(values).reshape(shape).requires_grad_()
        return self.all[name]


def linear(w, name, x, outputs, bias):
    y = x @ w(name + ".weight", x.shape[-1], outputs)  # (inputs, outputs): the transpose of nn.Linear's
    return y + w(name + ".bias", outputs) if bias else y


def layer_norm(w, name, x):
    return F.layer_norm(x, (WIDTH,), w(name + ".weight", WIDTH), w(name + ".bias", WIDTH), 1e-5)


def rms_norm(w, name, x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w(name + ".weight", WIDTH)


def rotate(x):
    size = x.shape[-1]
    rates = 10000.0 ** (-2 * torch.arange(size // 2) / size)
    angles = torch.arange(CONTEXT).unsqueeze(1) * rates
    cos, sin = torch.cos(angles), torch.sin(angles)
    low, high = x[..., : size // 2], x[..., size // 2 :]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def attention(w, name, x, kv_heads, rotary, bias):
    size = WIDTH // HEADS
    qkv = linear(w, name + ".qkv", x, (HEADS + 2 * kv_heads) * size, bias)
    q, k, v = qkv.split([HEADS * size, kv_heads * size, kv_heads * size], -1)
    q = q.view(BATCH, CONTEXT, HEADS, size).transpose(1, 2)
    k = k.view(BATCH, CONTEXT, kv_heads, size).transpose(1, 2)
    v = v.view(BATCH, CONTEXT, kv_heads, size).transpose(1, 2)
    if rotary:
        q, k = rotate(q), rotate(k)
    k = k.repeat_interleave(HEADS // kv_heads, 1)
    v = v.repeat_interleave(HEADS // kv_heads, 1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(size)
    hidden = torch.triu(torch.ones(CONTEXT, CONTEXT, dtype=torch.bool), 1)
    mixed = F.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v
    return linear(w, name + ".out", mixed.transpose(1, 2).reshape(BATCH, CONTEXT, WIDTH), WIDTH, bias)


def gpt2(w, ids):
    x = w("token_embedding.weight", VOCABULARY, WIDTH)[ids] + w("position_embedding.weight", CONTEXT, WIDTH)
    for i in range(LAYERS):
        block = f"blocks.{i}."
        x = x + attention(w, block + "attention", layer_norm(w, block + "norm1", x), HEADS, False, True)
        up = linear(w, block + "feed_forward.up", layer_norm(w, block + "norm2", x), 4 * WIDTH, True)
        x = x + linear(w, block + "feed_forward.down", F.gelu(up), WIDTH, True)
    return layer_norm(w, "norm", x) @ w.all["token_embedding.weight"].T


def llama(w, ids):
    x = w("token_embedding.weight", VOCABULARY, WIDTH)[ids]
    for i in range(LAYERS):
        block = f"blocks.{i}."
        x = x + attention(w, block + "attention", rms_norm(w, block + "norm1", x), 2, True, False)
        n = rms_norm(w, block + "norm2", x)
        gate = linear(w, block + "feed_forward.gate", n, 12, False)
        up = linear(w, block + "feed_forward.up", n, 12, False)
        x = x + linear(w, block + "feed_forward.down", F.silu(gate) * up, WIDTH, False)
    return linear(w, "head", rms_norm(w, "norm", x), VOCABULARY, False)


def case(model):
    w = Weights()
    count = BATCH * CONTEXT
    ids = torch.tensor([(i * 7 + 3) % VOCABULARY for i in range(count)]).view(BATCH, CONTEXT)
    targets = torch.tensor([(i * 5 + 1) % VOCABULARY for i in range(count)])
    loss = F.cross_entropy(model(w, ids).reshape(count, VOCABULARY), targets)
    loss.backward()
    gradients = {n: [float(f"{v:.10g}") for v in p.grad.flatten().tolist()] for n, p in w.all.items()}
    return {"loss": loss.item(), "gradients": gradients}


print(json.dumps({"gpt2": case(gpt2), "llama": case(llama)}, indent=0).replace(",\n", ", "))
