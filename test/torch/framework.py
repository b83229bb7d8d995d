"""What case lists are written with. See generate.py."""
import torch

_generator = torch.Generator()


def reseed(text):
    """Every case draws from a generator of its own: adding a case changes no other."""
    _generator.manual_seed(sum((i + 1) * ord(c) for i, c in enumerate(text)))


class Input:
    """An input of the graph under test. `data` is a float64, int64, int32 or bool tensor.

    A constant is written into the graph (axes, shapes, pads); other inputs are fed. Gradients are checked
    for every float64 input that is not constant.
    """

    def __init__(self, data, constant=False, gradient=True):
        self.data = data
        self.constant = constant
        self.gradient = gradient and not constant and data.dtype == torch.float64


def draw(*shape, low=-1.0, high=1.0, digits=3, gradient=True):
    """Uniform float64 numbers of a few decimal digits: they are the same in JSON as here."""
    numbers = torch.rand(shape, generator=_generator, dtype=torch.float64) * (high - low) + low
    return Input(torch.round(numbers, decimals=digits), gradient=gradient)


def values(data, shape=None, gradient=True):
    """Given numbers."""
    tensor = torch.tensor(data, dtype=torch.float64)
    return Input(tensor if shape is None else tensor.reshape(shape), gradient=gradient)


def ints(data, dtype=torch.int64, constant=False):
    """Given integers, fed (indices, labels)."""
    return Input(torch.tensor(data, dtype=dtype), constant=constant)


def draw_ints(*shape, low, high, dtype=torch.int64):
    return Input(torch.randint(low, high, shape, generator=_generator, dtype=dtype))


def const(data, dtype=torch.int64):
    """Given numbers that the graph holds as a constant: axes, shapes, pads, sizes."""
    return Input(torch.tensor(data, dtype=dtype), constant=True)


def bools(data):
    return Input(torch.tensor(data, dtype=torch.bool))


class Case:
    """One graph and what PyTorch makes of it.

    op          the ONNX operator, or the name of a builder that the family's test gives to `checkFamily`
    inputs      {name: Input or None (left out)}, in the operator's order; a function that makes them, so
                that each case draws its own numbers
    torch       from the input tensors (by position; None where left out) to the output or a tuple of them
    attributes  of the ONNX operator
    outputs     how many outputs the ONNX node has, where torch computes fewer: extra ones are not compared
    engine      a reason not to run it in the engine (no kernel): it is then a named skip
    tolerance   relative, of the float32 run in the engine; 2e-5 unless told
    """

    def __init__(self, name, op, inputs, torch, attributes=None, outputs=None, engine=None, tolerance=None):
        self.name, self.op, self.inputs, self.torch = name, op, inputs, torch
        self.attributes = attributes or {}
        self.outputs, self.engine, self.tolerance = outputs, engine, tolerance


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _numbers(tensor):
    """Numbers as short as float64 tests need; NaN and infinities as strings, for JSON has neither."""
    flat = tensor.detach().reshape(-1).tolist()
    if tensor.dtype != torch.float64:
        return [int(x) for x in flat]
    return [float(f"{x:.10g}") if abs(x) < float("inf") else _NAMES[str(x)] for x in flat]


def _dtype(tensor):
    return {torch.float64: "float64", torch.bool: "bool", torch.int64: "int64", torch.int32: "int32"}[tensor.dtype]


def _tensor(tensor):
    return {"dtype": _dtype(tensor), "shape": list(tensor.shape), "data": _numbers(tensor)}


def run(case):
    """The fixture of one case: outputs and, for random output gradients, the gradients of the inputs."""
    reseed(case.name)
    inputs = case.inputs()
    leaves = []
    for item in inputs.values():
        leaf = None if item is None else item.data.clone()
        if item is not None and item.gradient:
            leaf.requires_grad_(True)
        leaves.append(leaf)
    result = case.torch(*leaves)
    outputs = result if isinstance(result, tuple) else (result,)
    seeds = [draw(*o.shape, low=0.5, high=1.5, digits=2).data if o.dtype == torch.float64 else None for o in outputs]
    reached = [(o, s) for o, s in zip(outputs, seeds) if s is not None and o.requires_grad]
    gradients = {}
    if reached:
        names = [n for n, item in inputs.items() if item is not None and item.gradient]
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        found = torch.autograd.grad([o for o, _ in reached], wanted, [s for _, s in reached], allow_unused=True)
        gradients = {n: None if g is None else _numbers(g) for n, g in zip(names, found)}
    fixture = {
        "name": case.name,
        "op": case.op,
        "attributes": case.attributes,
        "inputs": [
            None if item is None else {"name": n, "constant": item.constant, **_tensor(item.data)}
            for n, item in inputs.items()
        ],
        "outputs": [_tensor(o) for o in outputs],
        "outputCount": case.outputs or len(outputs),
        "seeds": [None if s is None else _numbers(s) for s in seeds],
        "gradients": gradients,
    }
    if case.engine:
        fixture["skipEngine"] = case.engine
    if case.tolerance:
        fixture["tolerance"] = case.tolerance
    return fixture
