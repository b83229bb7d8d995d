"""Element-wise operators, with their values at kinks, zeros and large arguments."""
import torch
import torch.nn.functional as F

from framework import Case, bools, const, draw, values

# Kinks and both tails; `draw` adds what lies between.
KINKS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 8.0, -8.0]


def unary(op, function, low=-3.0, high=3.0, attributes=None, kinks=KINKS, name=None, engine=None, tolerance=None):
    label = name or op
    cases = [Case(label, op, lambda: {"x": draw(3, 4, low=low, high=high)}, function, attributes, engine=engine, tolerance=tolerance)]
    if kinks:
        cases.append(Case(f"{label} at kinks", op, lambda: {"x": values(kinks)}, function, attributes, engine=engine, tolerance=tolerance))
    return cases


def binary(op, function, low=-2.0, high=2.0, name=None):
    label = name or op
    make = lambda a, b: lambda: {"a": draw(*a, low=low, high=high), "b": draw(*b, low=low, high=high)}  # noqa: E731
    return [
        Case(label, op, make((2, 3), (2, 3)), function),
        Case(f"{label}, broadcast", op, make((2, 1, 3), (4, 1)), function),
        Case(f"{label}, scalar", op, make((2, 3), ()), function),
    ]


def variadic(op, function):
    return [
        Case(f"{op} of three", op, lambda: {"a": draw(2, 3), "b": draw(3), "c": draw(2, 1)}, function),
        Case(f"{op} of one", op, lambda: {"a": draw(2, 3)}, function),
    ]


TIES = {"a": [1.0, 2.0, 3.0, -1.0, 0.0], "b": [1.0, 3.0, 2.0, -1.0, 0.0]}


def ties():
    return {name: values(data) for name, data in TIES.items()}


def power(exponent, low, high, name=None):
    return Case(
        name or f"Pow, exponent {exponent}",
        "Pow",
        lambda: {"x": draw(2, 3, low=low, high=high), "e": const(exponent, torch.float64)},
        lambda x, e: torch.pow(x, exponent),
    )


CASES = [
    *unary("Abs", torch.abs),
    *unary("Acos", torch.acos, -0.9, 0.9, kinks=None),
    *unary("Acosh", torch.acosh, 1.2, 3, kinks=None),
    *unary("Asin", torch.asin, -0.9, 0.9, kinks=None),
    *unary("Asinh", torch.asinh),
    *unary("Atan", torch.atan),
    *unary("Atanh", torch.atanh, -0.9, 0.9, kinks=None),
    *unary("Ceil", torch.ceil),
    *unary("Celu", lambda x: F.celu(x, 0.5), attributes={"alpha": 0.5}),
    *unary("Cos", torch.cos),
    *unary("Cosh", torch.cosh),
    *unary("Elu", F.elu, attributes={"alpha": 1.0}),
    *unary("Elu", lambda x: F.elu(x, 0.4), attributes={"alpha": 0.4}, name="Elu, alpha 0.4"),
    *unary("Erf", torch.erf),
    *unary("Exp", torch.exp),
    *unary("Floor", torch.floor),
    *unary("Gelu", F.gelu),
    *unary("Gelu", lambda x: F.gelu(x, approximate="tanh"), attributes={"approximate": "tanh"}, name="Gelu, tanh"),
    *unary("HardSigmoid", F.hardsigmoid, -5, 5, attributes={"alpha": 1 / 6, "beta": 0.5}),
    *unary("HardSwish", F.hardswish, -5, 5),
    *unary("LeakyRelu", lambda x: F.leaky_relu(x, 0.1), attributes={"alpha": 0.1}),
    *unary("Log", torch.log, 0.1, 3, kinks=[1.0, 1e-3, 1e3]),
    *unary("Mish", F.mish),
    *unary("Neg", torch.neg),
    *unary("Reciprocal", torch.reciprocal, 0.3, 3, kinks=[-0.5, 0.5, 1.0, 100.0]),
    *unary("Relu", F.relu),
    *unary("Round", torch.round),
    *unary("Selu", F.selu, attributes={}),
    *unary("Shrink", lambda x: F.softshrink(x, 0.75), attributes={"bias": 0.75, "lambd": 0.75}),
    *unary("Sigmoid", torch.sigmoid, kinks=[*KINKS, 30.0, -30.0]),
    *unary("Sign", torch.sign),
    *unary("Sin", torch.sin),
    *unary("Sinh", torch.sinh),
    *unary("Softplus", F.softplus, kinks=[*KINKS, 15.0, -30.0]),
    *unary("Softsign", F.softsign),
    *unary("Sqrt", torch.sqrt, 0.1, 3, kinks=[0.0, 1.0, 4.0, 1e4]),
    *unary("Tan", torch.tan, -1.2, 1.2, kinks=[0.0, 1.0, -1.0]),
    *unary("Tanh", torch.tanh, kinks=[*KINKS, 30.0, -30.0]),
    *unary("ThresholdedRelu", lambda x: F.threshold(x, 1.0, 0.0), attributes={"alpha": 1.0}),
    *unary("com.microsoft::QuickGelu", lambda x: x * torch.sigmoid(1.702 * x), attributes={"alpha": 1.702}),
    *unary("com.microsoft::Gelu", F.gelu),
    Case("BiasGelu", "com.microsoft::BiasGelu", lambda: {"x": draw(2, 3, 4), "b": draw(4)}, lambda x, b: F.gelu(x + b)),
    Case("FastGelu", "com.microsoft::FastGelu", lambda: {"x": draw(2, 3, 4), "b": draw(4)},
         lambda x, b: F.gelu(x + b, approximate="tanh")),
    *binary("Add", torch.add),
    *binary("Sub", torch.sub),
    *binary("Mul", torch.mul),
    *binary("Div", torch.div, 0.5, 2),
    *binary("Pow", torch.pow, 0.2, 2),
    *binary("Max", torch.maximum),
    *binary("Min", torch.minimum),
    Case("Max of equal values", "Max", ties, torch.maximum),
    Case("Min of equal values", "Min", ties, torch.minimum),
    Case("Max of three, two equal", "Max", lambda: {"a": values([1.0, 5.0]), "b": values([1.0, 2.0]), "c": values([0.0, 5.0])},
         lambda a, b, c: torch.amax(torch.stack([a, b, c]), 0)),
    *variadic("Sum", lambda *xs: sum(xs[1:], xs[0])),
    *variadic("Mean", lambda *xs: sum(xs[1:], xs[0]) / len(xs)),
    Case("Mod, as Python", "Mod", lambda: {"a": draw(2, 3, low=-3, high=3), "b": values([0.7, -0.9, 1.1])}, torch.remainder,
         engine="ONNX gives floats no such remainder"),
    Case("Mod, as C", "Mod", lambda: {"a": draw(2, 3, low=-3, high=3), "b": values([0.7, -0.9, 1.1], gradient=False)}, torch.fmod,
         {"fmod": 1}),
    *[power(e, 0.2, 2) for e in (0.5, -0.5, -1.0, 1.7, -2.5)],
    *[power(e, -2, 2) for e in (0.0, 1.0, 2.0, 3.0, 4.0)],
    Case("Pow, base 0", "Pow", lambda: {"x": values([0.0, 0.0, 2.0]), "e": const(2.0, torch.float64)}, lambda x, e: torch.pow(x, 2.0)),
    Case("Pow, base 0 and exponents that learn", "Pow",
         lambda: {"x": values([0.0, 0.0, 0.0, 2.0, 0.0]), "e": values([0.0, 2.0, 1.0, 0.0, 3.0])}, torch.pow),
    Case("PRelu", "PRelu", lambda: {"x": draw(2, 3, 4), "slope": draw(3, 1)}, lambda x, s: F.prelu(x, s.reshape(-1))),
    Case("PRelu at 0", "PRelu", lambda: {"x": values([0.0, -1.0, 1.0]), "slope": values([0.25])}, F.prelu),
    Case("Clip", "Clip", lambda: {"x": draw(3, 5, low=-2, high=2), "low": const(-0.5, torch.float64), "high": const(1.0, torch.float64)},
         lambda x, l, h: torch.clamp(x, -0.5, 1.0)),
    # As of PyTorch 2.15: the derivative at a bound is 0. It was 1 in older versions.
    Case("Clip at its bounds", "Clip",
         lambda: {"x": values([-0.5, 1.0, 0.0, -0.6, 1.1]), "low": const(-0.5, torch.float64), "high": const(1.0, torch.float64)},
         lambda x, l, h: torch.clamp(x, -0.5, 1.0)),
    Case("Clip from below", "Clip", lambda: {"x": draw(3, 5), "low": const(0.1, torch.float64)}, lambda x, l: torch.clamp(x, min=0.1)),
    Case("Clip from above", "Clip", lambda: {"x": draw(3, 5), "low": None, "high": const(0.1, torch.float64)},
         lambda x, l, h: torch.clamp(x, max=0.1)),
    Case("Where", "Where", lambda: {"c": bools([[True, False, True], [False, False, True]]), "a": draw(2, 3), "b": draw(3)}, torch.where),
    Case("Where, a number", "Where", lambda: {"c": bools([[True], [False]]), "a": draw(), "b": draw(2, 3)}, torch.where),
    *[
        Case(op, op, lambda: {"a": values([1.0, 2.0, 3.0, -1.0]), "b": values([1.0, 3.0, 2.0, -1.0])}, function)
        for op, function in [("Equal", torch.eq), ("Greater", torch.gt), ("Less", torch.lt),
                             ("GreaterOrEqual", torch.ge), ("LessOrEqual", torch.le)]
    ],
    *[
        Case(op, op, lambda: {"a": bools([True, True, False, False]), "b": bools([True, False, True, False])}, function)
        for op, function in [("And", torch.logical_and), ("Or", torch.logical_or), ("Xor", torch.logical_xor)]
    ],
    Case("Not", "Not", lambda: {"a": bools([True, False])}, torch.logical_not),
    Case("IsNaN", "IsNaN", lambda: {"x": values([1.0, float("nan"), float("inf")])}, torch.isnan),
    Case("IsInf", "IsInf", lambda: {"x": values([1.0, float("nan"), float("inf"), -float("inf")])}, torch.isinf),
]
