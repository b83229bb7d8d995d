"""LSTM, GRU and RNN over sequences: PyTorch's layers with the weights in the order of ONNX."""
import torch
import torch.nn as nn

from framework import Case, Input, draw

# Where PyTorch's blocks of rows (LSTM: i f g o, GRU: r z n) stand in ONNX's order (i o f c, z r h).
ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def rows(op, weight):
    """ONNX's blocks of rows in PyTorch's order."""
    blocks = weight.chunk(len(ORDER[op]), 0)
    return torch.cat([blocks[i] for i in ORDER[op]])


def layer(op, steps=4, batch=2, inputs=3, hidden=2, both=False, lengths=None, states=True, bias=True, relu=False):
    gates, directions = len(ORDER[op]), 2 if both else 1
    kinds = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}

    def compute(x, w, r, b=None, n=None, *first):
        options = {"nonlinearity": "relu"} if relu else {}
        module = kinds[op](inputs, hidden, bias=b is not None, bidirectional=both, dtype=torch.float64, **options)
        weights = {}
        for d, end in enumerate(["_l0", "_l0_reverse"][:directions]):
            weights[f"weight_ih{end}"] = rows(op, w[d])
            weights[f"weight_hh{end}"] = rows(op, r[d])
            if b is not None:
                weights[f"bias_ih{end}"], weights[f"bias_hh{end}"] = (rows(op, half) for half in b[d].chunk(2))
        given = x if n is None else nn.utils.rnn.pack_padded_sequence(x, n.long(), enforce_sorted=False)
        state = (first if op == "LSTM" else first[0]) if first else None
        y, last = torch.func.functional_call(module, weights, (given, state))
        if n is not None:
            y, _ = nn.utils.rnn.pad_packed_sequence(y, total_length=steps)
        y = y.reshape(steps, batch, directions, hidden).transpose(1, 2)
        return (y, *(last if op == "LSTM" else (last,)))

    def draws():
        found = {
            "x": draw(steps, batch, inputs),
            "w": draw(directions, gates * hidden, inputs),
            "r": draw(directions, gates * hidden, hidden),
            "b": draw(directions, 2 * gates * hidden) if bias else None,
            "n": None if lengths is None else Input(torch.tensor(lengths, dtype=torch.int32)),
        }
        if states:
            found["h"] = draw(directions, batch, hidden)
        if states and op == "LSTM":
            found["c"] = draw(directions, batch, hidden)
        return found

    attributes = {"hidden_size": hidden, "direction": "bidirectional" if both else "forward"}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    if relu:
        attributes["activations"] = ["Relu"] * directions
    what = [f"batch {batch}, {hidden} hidden", *(["both directions"] if both else []), *(["lengths"] if lengths else []),
            *(["relu"] if relu else []), *([] if states else ["no states"]), *([] if bias else ["no bias"])]
    return Case(f"{op}, {', '.join(what)}", op, draws, compute, attributes)


CASES = [
    make
    for op in ["LSTM", "GRU", "RNN"]
    for make in [
        layer(op),
        layer(op, batch=2, hidden=3, states=False, bias=False),
        layer(op, both=True),
        layer(op, batch=3, lengths=[2, 4, 1], both=True),
    ]
] + [layer("RNN", relu=True, both=True), layer("LSTM", steps=1, batch=1, hidden=1, inputs=1)]
