/**
 * How fast is a whole training step (forward, backward, clipping, AdamW), compared with PyTorch's,
 * with the forward and backward of the design's spike, and with another revision? How much memory
 * does it take, and how long until the first step?
 */
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Revision } from "./against.ts";
import { type GptSizes, spikeStep, torchStep } from "./peers.ts";
import { type Benchmark, type BenchmarkOptions, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { StepMeasurement } from "./step-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const REPEATS = 9;
const ROUNDS = 3;

export const step: Benchmark = {
  name: "step",
  question: "whole GPT training steps in tokens/s, against PyTorch and the design's spike",
  comparesRevisions: true,
  run: measureAll,
};

async function measureAll({ against }: BenchmarkOptions): Promise<{
  rows: Row[];
  missing: string[];
}> {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const threads of [1, 2]) {
    const options = { sizes: SIZES, threads, repeats: REPEATS };
    const found = await takeTurns(
      {
        own: () => measure(threads, root),
        before: () => against && measure(threads, against.folder),
        torch: () => torchStep(root, options),
        narrow: () => torchStep(root, { ...options, bfloat16: true }),
        compiled: () => torchStep(root, { ...options, bfloat16: true, compiled: true }),
        spike: () => spikeStep(options),
      },
      ROUNDS,
    );
    const own = found.own.map(({ tokensPerSecond }) => tokensPerSecond);
    const name = `GPT step, ${threads} thread${threads === 1 ? "" : "s"}`;
    const row = { case: name, value: median(own), unit: "tokens/s" };
    const beside = (peer: string, values: readonly number[], least?: number): void => {
      if (values.length < ROUNDS) missing.add(peer);
      else {
        const goal = least === undefined ? {} : { goal: `at least ${least}x` };
        const ratio = ratioOf(own, values);
        rows.push(compared({ ...row, peer, peerValue: median(values), ratio, ...goal }, least));
      }
    };
    beside("PyTorch, float32", found.torch, 2);
    beside("PyTorch, bfloat16 autocast", found.narrow);
    beside("PyTorch, bfloat16 autocast, compiled", found.compiled);
    beside("spike, no optimizer", found.spike, 1);
    if (against !== undefined) {
      const before = found.before.map(({ tokensPerSecond }) => tokensPerSecond);
      beside(against.name, before, 0.98);
    }
    rows.push(...memoryAndStart(found.own, threads));
  }
  return { rows, missing: [...missing] };
}

function memoryAndStart(found: readonly StepMeasurement[], threads: number): Row[] {
  const name = `${threads} thread${threads === 1 ? "" : "s"}`;
  const middle = (of: (measured: StepMeasurement) => number) => median(found.map(of));
  const memory = compared({
    case: `peak memory, ${name}`,
    value: middle(({ peakBytes }) => peakBytes) / 2 ** 20,
    unit: "MiB",
    peer: "parameters + gradients + optimizer + activations needed",
    peerValue: middle(({ neededBytes }) => neededBytes) / 2 ** 20,
    goal: "at most 1.2x",
  });
  const startSeconds = middle((measured) => measured.startSeconds);
  return [
    { ...memory, reached: (memory.ratio ?? Number.NaN) <= 1.2 },
    {
      case: `start to first step, ${name}`,
      value: startSeconds,
      unit: "s",
      goal: "under 2 s",
      reached: startSeconds < 2,
    },
    {
      case: `start to the end of the first step, ${name}`,
      value: middle(({ firstStepSeconds }) => firstStepSeconds),
      unit: "s",
    },
  ];
}

/**
 * Measures in a process of its own, because peak memory and start-up are those of a fresh process.
 */
function measure(threads: number, folder: Revision["folder"]): StepMeasurement {
  const started = Date.now();
  const text = execFileSync(
    process.execPath,
    [
      join(folder, "build/benchmarks/step-child.js"),
      JSON.stringify({ sizes: SIZES, threads, repeats: REPEATS, started }),
    ],
    { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
  );
  return JSON.parse(text) as StepMeasurement;
}
