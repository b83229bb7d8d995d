"""Makes the files in fixtures/: real exports of PyTorch, and what PyTorch computes with them.

Run by hand, with Debian's python3-torch (1.13):  OMP_NUM_THREADS=1 python3 test/onnx/make_fixtures.py
Beside NAME.onnx stands NAME.json: inputs, outputs, the loss sum(output * weights), and its gradients.
"""
import json
import math
import os

import torch
from torch import nn
from torch.nn import functional as F

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 3)
        )

    def forward(self, x):
        return self.body(x.view(x.size(0), -1))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3)
        self.norm2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = x + F.hardswish(F.pad(x, (1, 1, 1, 1)))[:, :, 1:-1, 1:-1]
        x = F.max_pool2d(x, 2)
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.head(torch.flatten(x, 1))


class Block(nn.Module):
    """An encoder block as people write it: sizes are read from the tensors."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x, mask):
        batch, length, width = x.size()
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        split = lambda t: t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(mask, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(batch, length, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self, vocabulary=20, width=16, context=8):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, 2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        batch, length = ids.shape
        at = torch.arange(0, length, device=ids.device).unsqueeze(0).expand(batch, -1)
        steps = torch.arange(length)
        mask = steps.unsqueeze(0) > steps.unsqueeze(1)
        x = self.tokens(ids) + self.positions(at)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


class TorchEncoder(nn.Module):
    """PyTorch's own encoder layer."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(x)


class Digits(nn.Module):
    """For examples/from-pytorch.ts: untrained, as `torch.onnx.export` leaves it in training mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(16 * 7 * 7, 10)

    def forward(self, image):
        return self.head(torch.flatten(self.body(image), 1))


def save_example():
    torch.onnx.export(
        Digits().train(),
        torch.randn(2, 1, 28, 28),
        os.path.join(FOLDER, "../../../examples/assets/digits.onnx"),
        input_names=["image"],
        output_names=["logits"],
        opset_version=15,
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.TRAINING,
    )


def numbers(tensor):
    flat = tensor.detach().flatten().tolist()
    data = [float(f"{v:.7g}") for v in flat] if tensor.is_floating_point() else flat
    return {"shape": list(tensor.shape), "data": data}


def save(name, model, inputs, names, opset, train=False, folding=True, axes=("batch",)):
    model.train(train)
    dynamic = {n: dict(enumerate(axes)) for n in [*names, "output"]}
    if name.startswith(("mlp", "cnn")):
        dynamic = {n: {0: "batch"} for n in [*names, "output"]}
    torch.onnx.export(
        model,
        tuple(inputs),
        os.path.join(FOLDER, f"{name}.onnx"),
        input_names=names,
        output_names=["output"],
        opset_version=opset,
        dynamic_axes=dynamic,
        do_constant_folding=folding,
        training=torch.onnx.TrainingMode.PRESERVE if train else torch.onnx.TrainingMode.EVAL,
    )
    model.train(train)
    output = model(*inputs)
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(output.shape, generator=generator)
    (output * weights).sum().backward()
    record = {
        "opset": opset,
        "inputs": {n: numbers(t) for n, t in zip(names, inputs)},
        "output": numbers(output),
        "weights": numbers(weights),
        "gradients": {n: numbers(p.grad) for n, p in model.named_parameters() if p.grad is not None},
    }
    with open(os.path.join(FOLDER, f"{name}.json"), "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")
    model.zero_grad()


def main():
    torch.set_num_threads(1)
    os.makedirs(FOLDER, exist_ok=True)
    for opset in (13, 17):
        torch.manual_seed(opset)
        save(f"mlp-{opset}", Mlp(), [torch.randn(5, 2, 3)], ["x"], opset)
        cnn = Cnn()
        for norm in (cnn.norm1, cnn.norm2):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        images = torch.randn(3, 2, 8, 8)
        save(f"cnn-{opset}", cnn, [images], ["image"], opset)
        save(f"encoder-{opset}", Encoder(), [torch.randint(0, 20, (2, 5))], ["ids"], opset, axes=("batch", "length"))
    torch.manual_seed(1)
    save("cnn-train-15", Cnn(), [images], ["image"], 15, train=True, folding=False)
    torch.manual_seed(3)
    save_example()
    torch.manual_seed(2)
    save("torch-encoder-16", TorchEncoder(), [torch.randn(2, 4, 8)], ["x"], 16, train=True, axes=("batch", "length"))


main()
