"""Real models of PyTorch, shrunk, exported in many ways, trained by PyTorch and by Lockstep, and compared.

    python test/nightly/exports.py FOLDER [PATTERN]     (after export.py has filled FOLDER)

Each export is trained for 20 steps of SGD through the command line. Weights are compared by name, and what ONNX Runtime
computes with model.onnx with what PyTorch computes. One line a file: `right`, `wrong`, or `refused` with the reason.
"""
import json
import os
import re
import subprocess
import sys

import numpy
import onnxruntime
from safetensors.numpy import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAIN = os.environ.get("LOCKSTEP_MAIN", os.path.join(ROOT, "build/src/cli/main.js"))
RUN = """import {{ defineRun, mse, npy, onnx, sgd }} from "lockstep";
export default defineRun({{ model: onnx({path}, {{ loss: mse({{ prediction: "out", target: "target" }}) }}),
  data: npy({fields}, {{ heldOut: 0 }}), optimizer: sgd({{ learningRate: {rate} }}), batch: {batch}, steps: {steps} }});
"""


def relative(got, want):
    return float(numpy.abs(got - want).max() / max(1e-2, numpy.abs(want).max()))


def train(folder, path, truth):
    run = os.path.join(folder, os.path.basename(path)[:-5])
    os.makedirs(run, exist_ok=True)
    fields = {name: os.path.join(folder, f"{name}.npy") for name in [*truth["inputs"], "target"]}
    with open(os.path.join(run, "run.ts"), "w") as file:
        file.write(RUN.format(path=json.dumps(path), fields=json.dumps(fields), **{k: truth[k] for k in ("rate", "batch", "steps")}))
    done = subprocess.run(["node", MAIN, "train", "run.ts", "--anew", "--out", "out"], cwd=run, capture_output=True, text=True, timeout=300)
    return done, os.path.join(run, "out")


def compare(folder, truth, out):
    want = load_file(os.path.join(folder, "trained.safetensors"))
    got = load_file(os.path.join(out, "model.safetensors"))
    tied = {p["name"]: p.get("tiedTo", p["name"]) for p in truth["parameters"]}
    trained = {tied[p["name"]] for p in truth["parameters"] if p["requiresGrad"]} & {tied[name] for name in truth["reached"]}
    found = {tied.get(name, name) for name in got}
    buffers = set(truth["buffers"])
    worst, rows = 0.0, 0
    for name, value in got.items():
        if name in want and want[name].shape == value.shape:
            worst = max(worst, relative(value, want[name]))
        elif name in want:
            rows += 1
    session = onnxruntime.InferenceSession(os.path.join(out, "model.onnx"))
    inputs = {i.name: numpy.load(os.path.join(folder, f"{i.name}.npy")) for i in session.get_inputs()}
    final = numpy.load(os.path.join(folder, "final.npy"))
    if session.get_inputs()[0].shape[0] == 1:
        parts = [session.run(["out"], {k: v[i:i + 1] for k, v in inputs.items()})[0] for i in range(len(final))]
        output = relative(numpy.concatenate(parts), final)
    else:
        output = relative(session.run(["out"], inputs)[0], final)
    missing = sorted(trained - found)
    extra = sorted(found - trained - buffers)
    return worst, output, rows, missing, extra


def one(folder, path, truth):
    done, out = train(folder, path, truth)
    # Lines like "note: ...", but for the one that sums up what is trained.
    notes = [line for line in re.findall(r"note: (.*)", done.stdout + done.stderr) if not line.startswith("trains ")]
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip().splitlines()
        return "refused", next((line for line in text if "[" in line or "rror" in line), text[0] if text else "")[-200:]
    worst, output, rows, missing, extra = compare(folder, truth, out)
    facts = f"weights {worst:.1e} output {output:.1e}"
    if rows:
        facts += f", {rows} in part"
    if missing or extra:
        facts += f", missing {len(missing)} {missing[:2]}, extra {len(extra)} {extra[:2]}"
    right = not missing and not extra and worst < 2e-3 and output < 2e-3
    if right:
        return "right", facts
    return ("noted" if notes else "wrong"), facts + (f"; note: {notes[0][:120]}" if notes else "")


def main():
    folder, pattern = sys.argv[1], re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    counts = {}
    for model in sorted(os.listdir(folder)):
        for weights in ("fresh", "trained", "training"):
            here = os.path.join(folder, model, weights)
            if not os.path.exists(os.path.join(here, "truth.json")):
                continue
            truth = json.load(open(os.path.join(here, "truth.json")))
            for name in sorted(os.listdir(here)):
                label = f"{model}/{weights}/{name[:-5]}"
                if not name.endswith(".onnx") or not pattern.search(label):
                    continue
                try:
                    kind, facts = one(here, os.path.join(here, name), truth)
                except Exception as error:
                    kind, facts = "wrong", repr(error)[:200]
                counts[kind] = counts.get(kind, 0) + 1
                print(f"{kind:8}{label}: {facts}", flush=True)
    print(json.dumps(counts))


main()
