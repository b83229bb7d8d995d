"""Makes the files in batch/: exports of PyTorch 2 in which the batch size matters, and what PyTorch computes at several of them.

Run by hand, with PyTorch 2.7 or newer and onnxscript:  python3 test/onnx/make_batch_fixtures.py
Beside NAME.onnx stands NAME.json: for each batch size its inputs and the output before training; and for a batch of 4 the targets
and the output after two steps of SGD (learning rate 0.05) on the mean squared error.
"""
import json
import math
import os

import torch
from torch import nn
from torch.nn import functional as F

from without_paths import without_paths

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "batch")
SIZES = (1, 2, 3, 4, 5)


class Masked(nn.Module):
    """Attention that looks its mask up by sample and place, as masks made of functions are."""

    def __init__(self, width=8, length=5, vocabulary=11):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids, mask):
        batch, length = ids.shape
        x = self.tokens(ids)
        sample = torch.arange(batch)[:, None, None]
        key = torch.arange(length)[None, None, :]
        query = torch.arange(length)[None, :, None]
        allowed = mask[sample, key].bool() & (key <= query)
        k, v = self.mix(x).chunk(2, -1)
        scores = x @ k.transpose(-2, -1) / math.sqrt(x.size(-1))
        weights = scores.masked_fill(~allowed, -1e9).softmax(-1)
        return self.head(weights @ v)


class Patches(nn.Module):
    """A picture in pieces, with a token of its own in front, normalized over channels that were moved."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, stride=2)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, image):
        x = self.norm(self.stem(image).permute(0, 2, 3, 1))
        x = x.reshape(x.size(0), -1, x.size(-1))
        x = torch.cat([self.first.expand(x.size(0), -1, -1), x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(F.gelu(x[:, 0]))


def ids_and_mask(batch):
    mask = torch.ones(batch, 5, dtype=torch.int64)
    for row in range(batch):
        mask[row, 5 - row % 3 :] = 0
    return [torch.randint(0, 11, (batch, 5)), mask]


def images(batch):
    return [torch.randn(batch, 2, 7, 7)]


def numbers(tensor):
    flat = tensor.detach().flatten().tolist()
    data = [float(f"{v:.7g}") for v in flat] if tensor.is_floating_point() else flat
    return {"shape": list(tensor.shape), "data": data}


def save(name, model, make, inputs, batch=None, modern=True, optimize=True):
    """`batch`: the size of a file without a dynamic batch."""
    model = model.eval()
    with torch.no_grad():
        # Equal tensors of a fresh model would be merged.
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    example = tuple(make(batch or 2))
    path = os.path.join(FOLDER, f"{name}.onnx")
    common = {"input_names": inputs, "output_names": ["output"], "dynamo": modern}
    if modern:
        size = torch.export.Dim("batch", min=1, max=4096)
        shapes = None if batch else tuple({0: size} for _ in inputs)
        torch.onnx.export(
            model, example, path, dynamic_shapes=shapes, external_data=False, optimize=optimize, verbose=False, **common
        )
    else:
        axes = None if batch else {n: {0: "batch"} for n in [*inputs, "output"]}
        torch.onnx.export(model, example, path, dynamic_axes=axes, opset_version=17, **common)
    record = {"runs": []}
    for size in SIZES:
        given = make(size)
        record["runs"].append(
            {"batch": size, "inputs": {n: numbers(t) for n, t in zip(inputs, given)}, "output": numbers(model(*given))}
        )
    given = make(4)
    target = torch.randn(model(*given).shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.mse_loss(model(*given), target)
        loss.backward()
        optimizer.step()
    record["trained"] = {
        "inputs": {n: numbers(t) for n, t in zip(inputs, given)},
        "target": numbers(target),
        "output": numbers(model(*given)),
    }
    with open(os.path.join(FOLDER, f"{name}.json"), "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


def main():
    torch.set_num_threads(1)
    torch.manual_seed(5)
    save("masked", Masked(), ids_and_mask, ["ids", "mask"])
    save("masked-split", Masked(), ids_and_mask, ["ids", "mask"], optimize=False)
    save("masked-4", Masked(), ids_and_mask, ["ids", "mask"], batch=4)
    save("masked-1", Masked(), ids_and_mask, ["ids", "mask"], batch=1)
    save("patches", Patches(), images, ["image"])
    save("patches-3-old", Patches(), images, ["image"], batch=3, modern=False)
    save("patches-1-old", Patches(), images, ["image"], batch=1, modern=False)


main()
without_paths(FOLDER)
