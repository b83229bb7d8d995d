"""Real models of PyTorch, shrunk, exported in many ways, trained by PyTorch and by Lockstep, and compared.

    python test/nightly/exports.py FOLDER [PATTERN]     (after export.py has filled FOLDER)

Each export is trained for 20 steps of SGD through the command line. Weights are compared by name, and what ONNX Runtime
computes with model.onnx with what PyTorch computes. One line a file: `right`, `wrong`, `noted` (wrong, and said before the
first step), or `refused` with the reason. A right one may be so with a restriction, which its line says:
- `in part`: tables of which the file has but the rows in use, each compared with a row of PyTorch's;
- `renamed`: weights whose names the file has lost, each compared with the one of PyTorch's that is nearest of its size;
- `presumed`: normalizations that were folded and are taken as fresh;
- `by float64`: PyTorch's own float32 is far from its float64, for rounding decides on which side of a kink a value is, or grows
  from step to step; the weights are those of its float64.
`noisy` is what is near to neither then: only what the first step changed can be compared, and its distance from float64 stands
beside that of PyTorch's float32.
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


FAR = 2e-3


def relative(got, want):
    return float(numpy.abs(got - want).max() / max(1e-2, numpy.abs(want).max()))


def train(folder, path, truth):
    run = os.path.join(folder, f"{os.path.basename(path)[:-5]}-{truth['steps']}")
    os.makedirs(run, exist_ok=True)
    fields = {name: os.path.join(folder, f"{name}.npy") for name in [*truth["inputs"], "target"]}
    with open(os.path.join(run, "run.ts"), "w") as file:
        file.write(RUN.format(path=json.dumps(path), fields=json.dumps(fields), **{k: truth[k] for k in ("rate", "batch", "steps")}))
    done = subprocess.run(["node", MAIN, "train", "run.ts", "--anew", "--out", "out"], cwd=run, capture_output=True, text=True, timeout=300)
    return done, os.path.join(run, "out")


def part(got, want):
    """How far rows are from rows of the whole, each from one of its own: of a table the file has those in use."""
    distance = numpy.abs(got[:, None] - want[None]).max(-1)
    nearest = distance.argmin(1)
    return float("inf") if len(set(nearest)) < len(got) else float(distance.min(1).max() / max(1e-2, numpy.abs(want).max()))


def rename(got, want, extra, missing):
    """Weights without their names beside those of PyTorch that are nearest, and how far each is from its own."""
    pairs = sorted((relative(got[e].reshape(-1), want[m].reshape(-1)), e, m) for e in extra for m in missing if got[e].size == want[m].size)
    worst, found = 0.0, {}
    for distance, one, other in pairs:
        if one not in found and other not in found.values():
            found[one], worst = other, max(worst, distance)
    return worst, found


def compare(folder, truth, out, precision=""):
    want = load_file(os.path.join(folder, f"trained{precision}.safetensors"))
    got = load_file(os.path.join(out, "model.safetensors"))
    tied = {p["name"]: p.get("tiedTo", p["name"]) for p in truth["parameters"]}
    trained = {tied[p["name"]] for p in truth["parameters"] if p["requiresGrad"]} & {tied[name] for name in truth["reached"]}
    buffers = set(truth["buffers"])
    whole = {name: name[:-5] if name.endswith(".rows") else name for name in got}
    found = {tied.get(whole[name], whole[name]) for name in got}
    extra, missing = found - trained - buffers, trained - found
    worst, renamed = rename(got, want, extra & set(got), missing)
    rows = 0
    for name, value in got.items():
        other = whole[name]
        if other not in want:
            continue
        if want[other].shape == value.shape and name == other:
            worst = max(worst, relative(value, want[name]))
        else:
            rows += 1
            width = want[other].shape[-1]
            worst = max(worst, part(value.reshape(-1, width), want[other].reshape(-1, width)))
    session = onnxruntime.InferenceSession(os.path.join(out, "model.onnx"))
    inputs = {i.name: numpy.load(os.path.join(folder, f"{i.name}.npy")) for i in session.get_inputs()}
    final = numpy.load(os.path.join(folder, f"final{precision}.npy"))
    if session.get_inputs()[0].shape[0] == 1:
        parts = [session.run(["out"], {k: v[i:i + 1] for k, v in inputs.items()})[0] for i in range(len(final))]
        output = relative(numpy.concatenate(parts), final)
    else:
        output = relative(session.run(["out"], inputs)[0], final)
    return worst, output, rows, renamed, sorted(missing - set(renamed.values())), sorted(extra - set(renamed))


def is_noisy(folder):
    """Whether PyTorch's float32 is as far from its float64 as nothing right may be."""
    path = os.path.join(folder, "trained64.safetensors")
    if not os.path.exists(path):
        return False
    one, other = load_file(path), load_file(os.path.join(folder, "trained.safetensors"))
    return max(relative(other[name], one[name]) for name in one) >= FAR


def first_step(folder, path, truth):
    """What the first step changes, against PyTorch's float64: ours, and PyTorch's float32."""
    done, out = train(folder, path, {**truth, "steps": 1})
    if done.returncode != 0:
        return done.stderr.strip()[-200:]
    before, want, other = (load_file(os.path.join(folder, f"{name}.safetensors")) for name in ("before", "first64", "first"))
    got = load_file(os.path.join(out, "model.safetensors"))
    least = max(float(numpy.abs(want[name] - before[name]).max()) for name in got) * 1e-3

    def far(from_, name):
        moved = numpy.abs(want[name] - before[name]).max()
        return float(numpy.abs(from_[name] - want[name]).max() / max(moved, least))

    ours, theirs = max(far(got, name) for name in got), max(far(other, name) for name in got)
    return f"first step {ours:.1e} from float64, PyTorch's float32 {theirs:.1e}"


def one(folder, path, truth):
    done, out = train(folder, path, truth)
    # Lines like "note: ...", but for those that every run has, or every run of a file by the older exporter.
    notes = [line for line in re.findall(r"note: (.*)", done.stdout + done.stderr) if not re.match("trains |PyTorch's older exporter", line)]
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip().splitlines()
        return "refused", next((line for line in text if "[" in line or "rror" in line), text[0] if text else "")[-200:]
    found = compare(folder, truth, out)
    facts = ""
    if max(found[:2]) >= FAR and is_noisy(folder):
        exact = compare(folder, truth, out, "64")
        if max(exact[:2]) < FAR:
            found, facts = exact, "by float64: "
        elif not found[4] and not found[5]:
            return "noisy", first_step(folder, path, truth)
    worst, output, rows, renamed, missing, extra = found
    facts += f"weights {worst:.1e} output {output:.1e}"
    if rows:
        facts += f", {rows} in part"
    if renamed:
        facts += f", {len(renamed)} renamed"
    if any("taken as fresh" in note for note in notes):
        facts += ", normalizations presumed"
    if missing or extra:
        facts += f", missing {len(missing)} {missing[:2]}, extra {len(extra)} {extra[:2]}"
    right = not missing and not extra and worst < FAR and output < FAR
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
