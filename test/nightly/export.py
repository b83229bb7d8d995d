"""Exports the models of zoo.py in many ways, and trains each with PyTorch: what Lockstep's training is compared with.

    OMP_NUM_THREADS=1 python test/nightly/export.py FOLDER [MODEL ...]

FOLDER/MODEL/WEIGHTS/ holds inputs and targets (.npy), `truth.json` (which weights are trained and tied, losses of PyTorch),
`before.safetensors`, `first.safetensors`, `trained.safetensors` (PyTorch's weights before, after the first and after all steps),
`final.npy` (its output then), the same in float64, and one .onnx for each way of exporting.
"""
import json
import os
import sys
import traceback
import warnings

import numpy
import torch
from safetensors.torch import save_file
from zoo import ZOO

BATCH, STEPS, RATE = 4, 20, 0.02
# Normalization over the few values of a small image multiplies rounding: in training mode steps are small.
TRAINING_RATE = 0.0005
WAYS = {
    # name: (new exporter, optimized, dynamic batch)
    "new-opt-fixed": (True, True, False),
    "new-opt-dynamic": (True, True, True),
    "new-plain-dynamic": (True, False, True),
    "old-fold-fixed": (False, True, False),
    "old-fold-dynamic": (False, True, True),
    "old-plain-dynamic": (False, False, True),
}
# What is exported in training mode cannot be folded.
# The older exporter runs the module as it traces, so that its file begins with other statistics than the module.
TRAINING_WAYS = ["new-plain-dynamic"]


def build(name, weights):
    torch.manual_seed(1)
    make, inputs = ZOO[name]
    module = make().train(weights == "training")
    if weights == "trained":
        # Stands for training: no two values are equal any more, except those that are one tensor.
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.02)
    return module, inputs(BATCH)


def truth(module):
    first = {}
    parameters = []
    for name, value in module.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(value), name)
        parameters.append({
            "name": name, "shape": list(value.shape), "requiresGrad": value.requires_grad,
            **({} if known == name else {"tiedTo": known}),
        })
    return {"parameters": parameters, "buffers": [name for name, _ in module.named_buffers()]}


def state(module):
    return {key: value.detach().float().clone().contiguous() for key, value in module.state_dict().items()}


def train(module, inputs, target, rate, steps=STEPS):
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=rate)
    losses, reached = [], set()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(module(*inputs.values()), target)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    for name, value in module.named_parameters():
        if value.grad is not None:
            reached.add(name)
    return losses, sorted(reached)


def witness(name, weights, target, rate, here, precision=""):
    """Trains in one precision, and keeps weights and output as float32. Returns losses and names of weights with a gradient."""
    dtype = torch.float64 if precision else torch.float32

    def made():
        module, inputs = build(name, weights)
        return module.to(dtype), {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}

    module, inputs = made()
    save_file(state(module), os.path.join(here, "before.safetensors"))
    train(module, inputs, target.to(dtype), rate, 1)
    save_file(state(module), os.path.join(here, f"first{precision}.safetensors"))
    module, inputs = made()
    found = train(module, inputs, target.to(dtype), rate)
    module.eval()
    with torch.no_grad():
        final = module(*inputs.values())
    numpy.save(os.path.join(here, f"final{precision}.npy"), final.float().numpy())
    save_file(state(module), os.path.join(here, f"trained{precision}.safetensors"))
    return found


def export(module, inputs, way, path):
    new, optimized, dynamic = WAYS[way]
    names = list(inputs)
    values = tuple(inputs.values())
    if new:
        shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in names) if dynamic else None
        if shapes is not None and len(shapes) == 1 or shapes is None:
            given = shapes
        else:
            given = shapes
        if given is not None and type(module).__name__ == "Wrapped":
            given = (given,)  # forward(*inputs)
        torch.onnx.export(module, values, path, dynamo=True, optimize=optimized, input_names=names, output_names=["out"],
                          dynamic_shapes=given, external_data=False, verbose=False)
    else:
        axes = {name: {0: "batch"} for name in [*names, "out"]} if dynamic else None
        torch.onnx.export(module, values, path, dynamo=False, do_constant_folding=optimized, input_names=names,
                          output_names=["out"], dynamic_axes=axes, opset_version=17,
                          training=torch.onnx.TrainingMode.TRAINING if module.training else torch.onnx.TrainingMode.EVAL)


def one(folder, name, weights):
    here = os.path.join(folder, name, weights)
    module, inputs = build(name, weights)
    if weights == "training" and not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return
    os.makedirs(here, exist_ok=True)
    with torch.no_grad():
        out = module(*inputs.values())
    target = torch.sin(torch.arange(out.numel(), dtype=torch.float32)).reshape(out.shape)
    facts = truth(module)
    for way in TRAINING_WAYS if weights == "training" else WAYS:
        path = os.path.join(here, f"{way}.onnx")
        try:
            if not os.path.exists(path):
                # Running in training mode moves running statistics: each way has a module of its own.
                export(build(name, weights)[0], inputs, way, path)
            print(f"{name}/{weights}/{way}: {os.path.getsize(path) >> 10} KiB", flush=True)
        except Exception as error:  # an exporter that cannot is no fault of ours: say it and go on
            print(f"{name}/{weights}/{way}: not exported: {str(error).strip().splitlines()[0][:150]}", flush=True)
    for key, value in {**inputs, "target": target}.items():
        numpy.save(os.path.join(here, f"{key}.npy"), value.numpy())
    rate = TRAINING_RATE if weights == "training" else RATE
    losses, reached = witness(name, weights, target, rate, here)
    try:
        # Where an activation is near a kink, rounding decides: float32 alone may be far from what is meant.
        witness(name, weights, target, rate, here, "64")
    except RuntimeError as error:  # some modules write float32 into their code
        print(f"{name}/{weights}: not in float64: {str(error).strip().splitlines()[0][:100]}", flush=True)
    facts.update(inputs=list(inputs), reached=reached, losses=losses, steps=STEPS, rate=rate, batch=BATCH)
    with open(os.path.join(here, "truth.json"), "w") as file:
        json.dump(facts, file)


def main():
    folder, *names = sys.argv[1:]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in names or ZOO:
        for weights in ("fresh", "trained", "training"):
            try:
                one(folder, name, weights)
            except Exception:
                print(f"{name}/{weights}: {traceback.format_exc()}", flush=True)


main()
