"""Ten steps of PyTorch's optimizers in float64, for test/torch/optimizers.test.ts.

Run: python3 test/torch/optimizers.py > test/torch/fixtures/optimizers.json
"""
import json
import torch

torch.manual_seed(1)
SHAPES = {"weight": [3, 4], "bias": [5]}
STEPS = 10
START = {name: torch.randn(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
GRADIENTS = [
    {name: torch.randn(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    for _ in range(STEPS)
]

CASES = {
    "sgd": (torch.optim.SGD, dict(lr=0.1)),
    "sgd momentum": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    "sgd dampening": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.3)),
    "sgd nesterov": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.02)),
    "adam": (torch.optim.Adam, dict(lr=0.01)),
    "adam decay": (torch.optim.Adam, dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict()),
    "adamw tuned": (torch.optim.AdamW, dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
}
# With clipping of the global norm before each step.
CLIPPED = {"adamw clipped": ("adamw tuned", 1.5), "sgd clipped": ("sgd momentum", 0.5)}


def run(case, clip=None):
    make, options = CASES[case]
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in START.items()}
    optimizer = make(parameters.values(), **options)
    trace, norms = [], []
    for gradients in GRADIENTS:
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].clone()
        if clip is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), clip)))
        optimizer.step()
        trace.append(flat(parameters))
    return {"trace": trace, "norms": norms}


def flat(tensors):
    return {name: tensor.detach().flatten().tolist() for name, tensor in tensors.items()}


print(json.dumps({
    "torch": torch.__version__,
    "shapes": SHAPES,
    "start": flat(START),
    "gradients": [flat(gradients) for gradients in GRADIENTS],
    "cases": {
        **{name: run(name) for name in CASES},
        **{name: run(*case) for name, case in CLIPPED.items()},
    },
}))
