/**
 * How fast is a whole training step (forward, backward, clipping, AdamW), against PyTorch's and the design spike's
 * forward and backward alone? How much memory does it take, and how long until the first step?
 */
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type GptSizes, spikeStep, torchStep } from "./peers.ts";
import { type Benchmark, compared, type Row } from "./report.ts";
import type { StepMeasurement } from "./step-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const REPEATS = 9;

export const step: Benchmark = {
  name: "step",
  question: "whole GPT training steps in tokens/s, against PyTorch and the design's spike",
  run: () => Promise.resolve(measureAll()),
};

function measureAll(): { rows: Row[]; missing: string[] } {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const threads of [1, 2]) {
    const options = { sizes: SIZES, threads, repeats: REPEATS };
    // Ours before and after the peers: the machine may slow down meanwhile; the better of the two counts.
    const before = measure(threads);
    const spike = spikeStep(options);
    const torch = torchStep(root, options);
    const after = measure(threads);
    const best = after.tokensPerSecond > before.tokensPerSecond ? after : before;
    const name = `GPT step, ${threads} thread${threads === 1 ? "" : "s"}`;
    const row = { case: name, value: best.tokensPerSecond, unit: "tokens/s" };
    if (spike === undefined) missing.add("the spike (set LOCKSTEP_SPIKE, see benchmarks/peers.ts)");
    else {
      const goal = "at least the spike";
      rows.push(compared({ ...row, peer: "spike, no optimizer", peerValue: spike, goal }, 1));
    }
    if (torch === undefined) missing.add("PyTorch (Debian's python3-torch, and gpt_torch.py)");
    else {
      const goal = "at least 2x PyTorch";
      rows.push(compared({ ...row, peer: "PyTorch, no optimizer", peerValue: torch, goal }, 2));
    }
    if (spike === undefined && torch === undefined) rows.push(row);
    rows.push(...memoryAndStart(best, threads));
  }
  return { rows, missing: [...missing] };
}

function memoryAndStart(found: StepMeasurement, threads: number): Row[] {
  const name = `${threads} thread${threads === 1 ? "" : "s"}`;
  return [
    compared({
      case: `peak memory, ${name}`,
      value: found.peakBytes / 2 ** 20,
      unit: "MiB",
      peer: "parameters + gradients + optimizer + activations needed",
      peerValue: found.neededBytes / 2 ** 20,
      goal: "at most 1.2x",
    }),
    {
      case: `start to first step, ${name}`,
      value: found.startSeconds,
      unit: "s",
      goal: "under 2 s",
      reached: found.startSeconds < 2,
    },
    {
      case: `start to the end of the first step, ${name}`,
      value: found.firstStepSeconds,
      unit: "s",
    },
  ].map((row) =>
    "ratio" in row && row.ratio !== undefined ? { ...row, reached: row.ratio <= 1.2 } : row,
  );
}

/** In a process of its own: peak memory and start-up are those of a fresh one. */
function measure(threads: number): StepMeasurement {
  const started = Date.now();
  const text = execFileSync(
    process.execPath,
    [
      join(root, "build/benchmarks/step-child.js"),
      JSON.stringify({ sizes: SIZES, threads, repeats: REPEATS, started }),
    ],
    { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
  );
  return JSON.parse(text) as StepMeasurement;
}
