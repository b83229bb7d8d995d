#!/usr/bin/env python3
"""Numbers from PyTorch, kept as small JSON files, that operators and their gradients are compared with.

  OMP_NUM_THREADS=1 python3 test/torch/generate.py             all families
  OMP_NUM_THREADS=1 python3 test/torch/generate.py elementwise one family

A family is a file `cases_<family>.py` with a list `CASES` of `Case` (framework.py says what a case is). It is
computed in float64 and written to `fixtures/<family>.json`, which is committed; `<family>.test.ts` is then

  import { checkFamily } from "./support.ts";
  checkFamily("<family>");

and runs each case twice: in the reference interpreter in float64, and in ONNX Runtime in float32, each time
the operator and the gradient that our own rules derive. An operator of ours that is not one ONNX node (a loss,
a layer) is a builder given by name: `checkFamily("losses", { crossEntropy: (inputs, attributes) => ... })`.
A fixture must stay well under 100 KB: small shapes, many cases.
"""
import importlib
import json
import pathlib
import sys

import torch

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from framework import run  # noqa: E402


def main():
    torch.set_num_threads(1)
    families = sys.argv[1:] or sorted(p.stem[len("cases_"):] for p in HERE.glob("cases_*.py"))
    for family in families:
        cases = importlib.import_module(f"cases_{family}").CASES
        names = [case.name for case in cases]
        assert len(set(names)) == len(names), f"{family}: two cases have one name"
        lines = ",\n".join(json.dumps(run(case), separators=(",", ":")) for case in cases)
        text = f'{{"torch":"{torch.__version__}","cases":[\n{lines}\n]}}\n'
        assert len(text) < 100_000, f"{family}: {len(text)} bytes"
        (HERE / "fixtures" / f"{family}.json").write_text(text)
        print(f"{family}: {len(cases)} cases, {len(text)} bytes")


main()
