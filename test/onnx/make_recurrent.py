#!/usr/bin/env python3
"""PyTorch's exports of recurrent layers and loops, and 20 steps of SGD of each.

  python3 test/onnx/make_recurrent.py     writes fixtures/recurrent/NAME.onnx and NAME.json (PyTorch 2.9 or newer)

Each model maps `x` to `y`. A step takes all samples; the loss is the mean square of y - target. A file has the losses
of 20 steps with a learning rate of 0.2 and the outputs after them.
"""
import json
import logging
import pathlib
import warnings

import onnx
import torch
import torch.nn as nn

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from without_paths import without_paths

FOLDER = pathlib.Path(__file__).resolve().parent / "fixtures" / "recurrent"
STEPS, RATE = 20, 0.2


class Sequences(nn.Module):
    """A recurrent layer, and linear layers on all of its outputs and on its last states."""

    def __init__(self, layer, packed=False):
        super().__init__()
        self.layer, self.packed = layer, packed
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        self.head, self.last = nn.Linear(width, 2), nn.Linear(width, 2)

    def forward(self, x, lengths=None):
        if self.packed:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            y, h = self.layer(packed)
            y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        else:
            y, h = self.layer(x)
        h = h[0] if isinstance(h, tuple) else h
        h = torch.cat([h[-2], h[-1]], -1) if self.layer.bidirectional else h[-1]
        return self.head(y) + self.last(h).unsqueeze(1)


class ScriptedLoop(nn.Module):
    """A cell of one's own in a loop that torch.jit.script keeps: ONNX's Loop."""

    def __init__(self):
        super().__init__()
        self.inside, self.again, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.inside(x[:, t]) + self.again(h))
        return self.head(h)


class Scanned(nn.Module):
    """The same by torch.scan: ONNX's Scan."""

    def __init__(self, reverse=False):
        super().__init__()
        self.inside, self.again = nn.Linear(3, 4), nn.Linear(4, 4)
        self.head, self.last = nn.Linear(4, 2), nn.Linear(4, 2)
        self.reverse = reverse

    def forward(self, x):
        from torch._higher_order_ops.scan import scan

        def step(h, xt):
            h = torch.tanh(xt + self.again(h))
            return h, h * 1.0

        inside = self.inside(x).transpose(0, 1)
        last, all_ = scan(step, torch.zeros(x.shape[0], 4), inside, reverse=self.reverse)
        return self.head(all_.transpose(0, 1)) + self.last(last).unsqueeze(1)


def write(name, make, x, lengths=None, dynamo=False, opset=17, script=False, free=False):
    torch.manual_seed(7)
    net = make().eval()
    args = (x,) if lengths is None else (x, torch.tensor(lengths))
    names = ["x", "lengths"][: len(args)]
    options = {"opset_version": opset} if not dynamo else {}
    if free and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif free:
        options["dynamic_axes"] = {"x": {0: "batch"}, "y": {0: "batch"}}
    path = FOLDER / f"{name}.onnx"
    model = torch.jit.script(net) if script else net
    torch.onnx.export(model, args, path, input_names=names, output_names=["y"], dynamo=dynamo,
                      external_data=False, **options)
    file = onnx.load(path)
    for node in file.graph.node:
        node.doc_string = ""
        kept = [p for p in node.metadata_props if p.key.endswith("name_scopes")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(file, path)
    optimizer = torch.optim.SGD(net.parameters(), RATE)
    target = torch.round(torch.randn_like(net(*args)), decimals=2)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((net(*args) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(f"{loss.item():.8g}"))
    tensor = lambda t: {"shape": list(t.shape), "data": [float(f"{v:.7g}") for v in t.flatten().tolist()]}
    numbers = {
        "torch": torch.__version__.split("+")[0],
        "operators": sorted({n.op_type for n in file.graph.node}),
        "x": {"dtype": str(x.dtype).split(".")[-1], **tensor(x)},
        "lengths": lengths, "target": tensor(target), "rate": RATE, "losses": losses, "y": tensor(net(*args).detach()),
    }
    path.with_suffix(".json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    print(name, path.stat().st_size, numbers["operators"], losses[0], losses[-1])


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(3)
    x = torch.round(torch.randn(4, 5, 3), decimals=2)
    two = dict(num_layers=2, batch_first=True, bidirectional=True, dropout=0.3)
    write("lstm-old", lambda: Sequences(nn.LSTM(3, 4, **two)), x, free=True)
    write("lstm-new", lambda: Sequences(nn.LSTM(3, 4, **two)), x, dynamo=True, free=True)
    write("lstm-packed", lambda: Sequences(nn.LSTM(3, 4, batch_first=True, bidirectional=True), True), x, [5, 4, 2, 1])
    write("gru-old", lambda: Sequences(nn.GRU(3, 4, **two)), x, opset=13)
    write("gru-new", lambda: Sequences(nn.GRU(3, 4, batch_first=True)), x, dynamo=True, free=True)
    write("gru-packed", lambda: Sequences(nn.GRU(3, 4, batch_first=True, bidirectional=True), True), x, [5, 4, 2, 1])
    write("rnn-old", lambda: Sequences(nn.RNN(3, 4, nonlinearity="relu", **two)), x, free=True)
    write("rnn-new", lambda: Sequences(nn.RNN(3, 4, batch_first=True)), x, dynamo=True, free=True)
    write("loop", ScriptedLoop, x, script=True)
    write("scan", Scanned, x, dynamo=True, free=True)
    write("scan-reverse", lambda: Scanned(True), x, dynamo=True, free=True)


main()
without_paths(FOLDER)
