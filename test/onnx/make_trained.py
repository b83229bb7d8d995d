"""Makes fixtures/trained/: small modules as PyTorch's exporters write them, and their weights after some steps of PyTorch.

Run by hand, with PyTorch 2.7 or newer, onnx and onnxscript:  OMP_NUM_THREADS=1 python test/onnx/make_trained.py [NAME ...]
Beside NAME.WAY.onnx stands NAME.json: inputs, target, parameters (names, ties), and the state dict after the steps.
"""
import functools
import json
import os
import sys
import warnings

import onnx
import onnxscript.optimizer
import torch
from torch import nn
from torch.nn import functional as F

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "trained")
OPTIMIZE = onnxscript.optimizer.optimize_ir
STEPS, RATE, BATCH = 3, 0.1, 4
LONGER = {"recurrent": 20}
# name: (newer exporter, optimizer or folding, dynamic batch)
WAYS = {
    "new": (True, True, False),
    "new-dynamic": (True, True, True),
    "new-partly": (True, True, True),
    "new-plain": (True, False, True),
    "old": (False, True, True),
    "old-plain": (False, False, True),
}


class Merged(nn.Module):
    """Fresh normalizations are equal, and so are biases of zeros; one weight is alone in its tensor."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.PReLU()) for _ in range(2))
        self.head = nn.Linear(4, 1)
        for part in self.body:
            nn.init.zeros_(part[0].bias)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        for part in self.body:
            x = part(x)
        return self.head(x) * self.scale.exp()


class Tied(nn.Module):
    """A head that is the embedding, rows of positions, a token for each sample, and buffers that look like weights."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(6, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mix, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)))
        self.register_buffer("wave", torch.sin(torch.arange(4.0)) + 2)

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(3))
        x = torch.cat([self.token.expand(ids.shape[0], -1, -1), x], 1)
        return self.head(self.norm(self.mix(self.mask @ x) * self.wave))


class Stopped(nn.Module):
    """Gradients stop at what is detached, and at rows of padding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 3, padding_idx=1)
        self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, ids):
        x = self.inner(self.words(ids))
        return self.outer(x + (torch.round(x) - x).detach())


class Normed(nn.Module):
    """Statistics of few values, where dividing by the count or by one less is not the same."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm1 = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.mix, self.norm2, self.head = nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv(x)))
        return self.head(self.norm2(self.mix(torch.flatten(x, 1))))


class Fresh(nn.Module):
    """Normalizations that the newer exporter multiplies into the layers before them; their shifts are zeros."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3, eps=0.1)
        self.conv2, self.norm2 = nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)
        self.up, self.norm3 = nn.ConvTranspose2d(4, 2, 2, bias=False), nn.BatchNorm2d(2)
        self.mix, self.norm4 = nn.Linear(18, 3, bias=False), nn.BatchNorm1d(3, affine=False)
        self.head = nn.Linear(3, 2)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x):
        x = torch.tanh(self.norm1(self.conv1(x)))
        x = torch.tanh(self.norm2(self.conv2(x)))
        x = torch.tanh(self.norm3(self.up(x)))
        return self.head(torch.tanh(self.norm4(self.mix(torch.flatten(x, 1)))))


class Early(nn.Module):
    """A fresh normalization that nothing is folded into: its four vectors are two in the file."""

    def __init__(self):
        super().__init__()
        self.norm1, self.mix, self.norm2 = nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm2(torch.tanh(self.mix(torch.tanh(self.norm1(x)))))


class Shifted(nn.Module):
    """One normalization was trained, one has scales of zero: neither can be told from what the file has."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 2, 2, bias=False), nn.BatchNorm2d(2)
        self.conv2, self.norm2 = nn.Conv2d(2, 2, 2, bias=False), nn.BatchNorm2d(2)
        self.conv3, self.norm3 = nn.Conv2d(2, 2, 2, bias=False), nn.BatchNorm2d(2)
        nn.init.constant_(self.norm1.bias, 0.1)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x):
        x = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return torch.flatten(self.norm3(self.conv3(x)), 1)


class Window(nn.Module):
    """Attention in windows of 2 by 3, with biases of relative positions and a mask; scales of equal initial values, reshaped."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.relative_position_bias_table = nn.Parameter(torch.randn(3 * 5, 2))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")).flatten(1)
        offsets = places[:, :, None] - places[:, None, :]
        self.register_buffer("relative_position_index", ((offsets[0] + 1) * 5 + offsets[1] + 2).flatten())
        self.gamma = nn.Parameter(torch.full((4,), 0.5))
        apart = torch.arange(6)[:, None] // 4 != torch.arange(6) // 4
        self.register_buffer("shift", torch.where(apart, -100.0, 0.0))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].view(6, 6, 2).permute(2, 0, 1).unsqueeze(0)
        mixed = torch.softmax(q @ k.transpose(-1, -2) + bias + self.shift[None, None], -1) @ v
        mixed = mixed.permute(0, 1, 3, 2).reshape(-1, 4, 6, 1)
        return x + (mixed * self.gamma.reshape(1, -1, 1, 1)).flatten(2).transpose(1, 2)


class Capped(nn.Module):
    """Values that lie exactly on a bound of ReLU6, where its derivative is 0."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(3, 4, bias=False), nn.ReLU6(), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight[1:3] = 0

    def forward(self, x):
        return self.head(self.act(self.first(x)))


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Window(), Window())

    def forward(self, x):
        return self.blocks(x)
class Recurrent(nn.Module):
    """All kinds of recurrent layers: both directions and several layers, no biases, called twice, fresh biases of zeros."""

    def __init__(self):
        super().__init__()
        self.both = nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True)
        self.parts = nn.ModuleList([nn.GRU(4, 3, batch_first=True, bias=False), nn.GRU(3, 2, batch_first=True)])
        self.plain = nn.RNN(2, 2, bidirectional=True, nonlinearity="relu", batch_first=True)
        self.again, self.other = nn.LSTM(4, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)
        for layer in [self.again, self.other]:
            nn.init.zeros_(layer.bias_ih_l0)
            nn.init.zeros_(layer.bias_hh_l0)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x, _ = self.both(x)
        for part in self.parts:
            x, _ = part(x)
        x, _ = self.plain(x)
        x = self.again(self.again(x)[0])[0] + self.other(x)[0]
        return self.head(x)


class Copied(nn.Module):
    """Weights that are read in several forms: turned, in part, and by modules that are called again."""

    def __init__(self):
        super().__init__()
        self.encode, self.bias = nn.Linear(6, 4), nn.Parameter(torch.zeros(6))
        self.again, self.act = nn.Linear(6, 6, bias=False), nn.PReLU()
        self.bank = nn.Parameter(torch.randn(6, 2, 3))

    def forward(self, x):
        for _ in range(2):
            x = x + self.act(self.again(x.unsqueeze(1))).squeeze(1)
        x = F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)
        return torch.einsum("bi,ijk->bjk", x, self.bank).flatten(1) + (x @ self.bank[:, 1]).repeat(1, 2)


class State(nn.Module):
    """The first round of a recurrence reads parameters alone, so the optimizer computes it."""

    def __init__(self):
        super().__init__()
        self.cell, self.first = nn.GRUCell(2, 3), nn.Parameter(torch.ones(1, 3))

    def forward(self, x):
        state = self.first.expand(x.shape[0], -1)
        for _ in range(2):
            state = self.cell(x, state)
        return state


class Spread(nn.Module):
    """A weight of which the optimizer repeats a part."""

    def __init__(self):
        super().__init__()
        self.bank = nn.Parameter(torch.randn(2, 3, 3))

    def forward(self, x):
        whole = (x[:, None, None] * self.bank).flatten(1).sum(1, keepdim=True)
        return whole + x.repeat(1, 2) @ self.bank[1].repeat(2, 1)


class Scaled(nn.Module):
    """Weights that are computed from others."""

    def __init__(self):
        super().__init__()
        self.mix = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

    def forward(self, x):
        return self.mix(x)


class Unsaid(nn.Module):
    """What training does beside following gradients, and options that the newer exporter drops."""

    def __init__(self):
        super().__init__()
        self.mix, self.words = nn.Linear(3, 4), nn.Embedding(4, 4, scale_grad_by_freq=True)
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x):
        x = self.mix(x)
        self.average.mul_(0.9).add_(x.detach().mean(0) * 0.1)
        x = x - self.average + self.words(x.argmax(1))
        return F.cross_entropy(x, torch.zeros_like(x[:, 0], dtype=torch.int64), label_smoothing=0.1)


def floats(*shape):
    return torch.sin(torch.arange(float(torch.Size(shape).numel()))).reshape(shape)


MODULES = {
    "merged": (Merged, {"x": floats(BATCH, 4)}, False, list(WAYS)),
    "tied": (Tied, {"ids": torch.tensor([[2, 3, 4], [5, 6, 2], [3, 3, 0], [6, 0, 4]])}, False, list(WAYS)),
    "stopped": (Stopped, {"ids": torch.tensor([[1, 3], [2, 1], [4, 4], [0, 1]])}, False, ["new-dynamic", "new-plain", "old-plain"]),
    "fresh": (Fresh, {"x": floats(BATCH, 2, 4, 4)}, False, ["new", "new-dynamic", "old-plain"]),
    "early": (Early, {"x": floats(BATCH, 3)}, False, list(WAYS)),
    "shifted": (Shifted, {"x": floats(BATCH, 1, 4, 4)}, False, ["new"]),
    "windows": (Windows, {"x": floats(BATCH, 6, 4)}, False, list(WAYS)),
    "capped": (Capped, {"x": floats(BATCH, 3)}, False, ["new", "new-plain", "old", "old-plain"]),
    "normed": (Normed, {"x": floats(BATCH, 1, 4, 4)}, True, ["new-plain", "old-plain"]),
    "copied": (Copied, {"x": floats(BATCH, 6)}, False, ["new", "new-dynamic", "new-plain", "old", "old-plain"]),
    "state": (State, {"x": floats(BATCH, 2)}, False, ["new"]),
    "spread": (Spread, {"x": floats(BATCH, 3)}, False, ["new"]),
    "scaled": (Scaled, {"x": floats(BATCH, 3)}, False, ["old"]),
    "unsaid": (Unsaid, {"x": floats(BATCH, 3)}, True, ["new-plain"]),
    "recurrent": (Recurrent, {"x": floats(BATCH, 5, 3)}, False, ["new", "new-partly", "old", "old-plain"]),
}


def build(kind, training):
    torch.manual_seed(3)
    return kind().train(training)


def export(module, inputs, way, path):
    new, optimized, dynamic = WAYS[way]
    given = tuple(inputs.values())
    if new:
        # As the optimizer treats larger models: it folds what has up to 8192 elements.
        limit = {"input_size_limit": 40} if way == "new-partly" else {}
        onnxscript.optimizer.optimize_ir = functools.partial(OPTIMIZE, **limit)
        shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in given) if dynamic else None
        torch.onnx.export(module, given, path, dynamo=True, optimize=optimized, input_names=list(inputs), output_names=["out"],
                          dynamic_shapes=shapes, external_data=False, verbose=False)
    else:
        mode = torch.onnx.TrainingMode.TRAINING if module.training else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(module, given, path, dynamo=False, do_constant_folding=optimized, training=mode, opset_version=17,
                          input_names=list(inputs), output_names=["out"],
                          dynamic_axes={name: {0: "batch"} for name in [*inputs, "out"]} if dynamic else None)
    shrink(path)


def shrink(path):
    """Leaves out what nothing reads and what names folders of this machine."""
    model = onnx.load(path)
    for node in model.graph.node:
        kept = [(e.key, e.value) for e in node.metadata_props if e.key in ("pkg.torch.onnx.fx_node", "pkg.torch.onnx.name_scopes")]
        del node.metadata_props[:]
        node.doc_string = ""
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)
    del model.graph.value_info[:]
    onnx.save(model, path)


def reset(path, module):
    """The older exporter runs the module once, which moves running statistics in training mode: as they were before."""
    model = onnx.load(path)
    state = module.state_dict()
    for tensor in model.graph.initializer:
        if "running_" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    onnx.save(model, path)


def numbers(tensor):
    return {"shape": list(tensor.shape), "data": tensor.detach().flatten().tolist()}


def trained(kind, training, inputs, target, steps, optimizer):
    """The state dict after so many steps, and the outputs then."""
    module = build(kind, training)
    step = optimizer(module.parameters())
    for _ in range(steps):
        step.zero_grad()
        F.mse_loss(module(*inputs.values()), target).backward()
        step.step()
    with torch.no_grad():
        return state(module), numbers(module(*inputs.values()))


def state(module):
    return {key: numbers(value) for key, value in module.state_dict().items() if value.is_floating_point()}


def main():
    os.makedirs(FOLDER, exist_ok=True)
    warnings.filterwarnings("ignore")
    for name in sys.argv[1:] or MODULES:
        kind, inputs, training, ways = MODULES[name]
        for way in ways:
            path = os.path.join(FOLDER, f"{name}.{way}.onnx")
            export(build(kind, training), inputs, way, path)
            reset(path, build(kind, training))
        module = build(kind, training)
        first, parameters = {}, []
        for key, value in module.named_parameters(remove_duplicate=False):
            known = first.setdefault(id(value), key)
            parameters.append({"name": key, **({} if known == key else {"tiedTo": known})})
        with torch.no_grad():
            out = build(kind, training)(*inputs.values())
        target = torch.cos(torch.arange(float(out.numel()))).reshape(out.shape)
        steps = LONGER.get(name, STEPS)
        after, _ = trained(kind, training, inputs, target, steps, lambda p: torch.optim.SGD(p, lr=RATE))
        facts = {"steps": steps, "rate": RATE, "batch": BATCH, "ways": ways, "parameters": parameters,
                 "inputs": {key: numbers(value) for key, value in inputs.items()}, "target": numbers(target),
                 "before": state(module), "after": after}
        if name in LONGER:
            # All parameters decay, as PyTorch's do by default.
            adamw = lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)
            facts["adamw"], facts["adamwOut"] = trained(kind, training, inputs, target, steps, adamw)
        with open(os.path.join(FOLDER, f"{name}.json"), "w") as file:
            json.dump(facts, file)


main()
