/**
 * What do the element-wise parts of a step cost for each parameter: an AdamW update, the norm of
 * the gradient, the sum of two gradients? Measured for a model of 10.7 million parameters, and
 * compared with PyTorch's AdamW. There is one process for each number of threads.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { OptimizerMeasurement } from "./optimizer-child.ts";
import { type Benchmark, compared, type Row } from "./report.ts";

const ELEMENTS = 10_700_000;
const REPEATS = 15;

const TORCH = `
import time, torch
torch.set_num_threads(THREADS)
p = torch.nn.Parameter(torch.randn(${ELEMENTS}))
o = torch.optim.AdamW([p])
p.grad = torch.randn(${ELEMENTS})
best = 1e9
for _ in range(${REPEATS}):
    t = time.perf_counter()
    o.step()
    best = min(best, time.perf_counter() - t)
print(best * 1e9 / ${ELEMENTS})
`;

export const optimizer: Benchmark = {
  name: "optimizer",
  question: "nanoseconds an element for AdamW, gradient norm and gradient sum, against PyTorch",
  run: () => Promise.resolve(measureAll()),
};

function measureAll(): { rows: Row[]; missing: string[] } {
  const rows: Row[] = [];
  const missing: string[] = [];
  const single = measure(1);
  for (const threads of [1, 2]) {
    const own = threads === 1 ? single : measure(threads);
    const on = `${threads} thread${threads === 1 ? "" : "s"}`;
    const peerValue = torchAdamw(threads);
    const unit = "ns/element";
    const goal =
      threads === 1
        ? { goal: "at most 2.5", reached: own.update <= 2.5 }
        : { goal: "nearly half of 1 thread", reached: own.update <= 0.65 * single.update };
    const update = { case: `AdamW, ${on}`, value: own.update, unit };
    if (peerValue === undefined) missing.push(`PyTorch's AdamW on ${on} (python3-torch)`);
    const peer = peerValue === undefined ? {} : { peer: "PyTorch AdamW", peerValue };
    rows.push({ ...compared({ ...update, ...peer }), ...goal });
    rows.push({ case: `gradient norm, ${on}`, value: own.norm, unit });
    rows.push({ case: `gradient sum, ${on}`, value: own.sum, unit });
  }
  return { rows, missing };
}

function measure(threads: number): OptimizerMeasurement {
  const child = fileURLToPath(new URL("./optimizer-child.js", import.meta.url));
  const request = JSON.stringify({ threads, elements: ELEMENTS, repeats: REPEATS });
  const text = execFileSync(process.execPath, [child, request], { encoding: "utf8" });
  return JSON.parse(text) as OptimizerMeasurement;
}

function torchAdamw(threads: number): number | undefined {
  try {
    const script = TORCH.replace("THREADS", String(threads));
    const env = { ...process.env, OMP_NUM_THREADS: String(threads) };
    const stdio: ["ignore", "pipe", "ignore"] = ["ignore", "pipe", "ignore"];
    return Number(
      execFileSync("/usr/bin/python3", ["-c", script], { encoding: "utf8", env, stdio }),
    );
  } catch {
    return undefined;
  }
}
