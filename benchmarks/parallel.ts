/**
 * Two workers that divide a model, against two that share its samples, and against PyTorch's tensor
 * parallelism over Gloo.
 */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type GptSizes, torchTensor } from "./peers.ts";
import { type Benchmark, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const MICRO_BATCHES = 8;
const REPEATS = 3;
const ROUNDS = 3;
const MODELS: readonly (readonly [name: string, sizes: GptSizes])[] = [
  [
    "6 layers, width 384",
    { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 },
  ],
  [
    "4 layers, width 1,024",
    { layers: 4, width: 1024, heads: 16, context: 256, batch: 8, vocabulary: 65 },
  ],
];

export const parallel: Benchmark = {
  name: "parallel",
  question: "GPT training steps in tokens/s on two workers that divide the model",
  run: async () => {
    const rows: Row[] = [];
    const missing = new Set<string>();
    for (const [name, sizes] of MODELS) {
      const found = await measure(name, sizes);
      rows.push(...found.rows);
      for (const peer of found.missing) missing.add(peer);
    }
    return { rows, missing: [...missing] };
  },
};

async function measure(
  name: string,
  sizes: GptSizes,
): Promise<{ readonly rows: Row[]; readonly missing: readonly string[] }> {
  const tokens = sizes.batch * sizes.context;
  const speed = async (axes: ScalingRequest["parallel"]) => {
    const { seconds, waiting } = await workers(sizes, axes);
    return { speed: tokens / seconds, waiting };
  };
  const { tensor, data, torch } = await takeTurns(
    {
      tensor: () => speed({ tensor: 2 }),
      data: () => speed({ data: 2 }),
      torch: () => torchTensor(root, { sizes, threads: 1, repeats: REPEATS, workers: 2 }),
    },
    ROUNDS,
  );
  const own = tensor.map((found) => found.speed);
  const beside = (peer: string, values: readonly number[], least: number) =>
    compared(
      {
        case: `${name}: tensor=2, 2 workers of 1 thread`,
        value: median(own),
        unit: "tokens/s",
        peer,
        peerValue: median(values),
        ratio: ratioOf(own, values),
        goal: `at least ${least}x`,
      },
      least,
    );
  const rows = [
    beside(
      "data=2",
      data.map((found) => found.speed),
      0.85,
    ),
    {
      case: `${name}: in exchanges and other collectives`,
      value: 100 * median(tensor.map(({ waiting }) => waiting)),
      unit: "% of a step",
    },
  ];
  if (torch.length < ROUNDS) return { rows, missing: ["PyTorch (LOCKSTEP_PYTHON)"] };
  return { rows: [...rows, beside("PyTorch parallelize_module with Gloo", torch, 1)], missing: [] };
}

async function workers(
  sizes: GptSizes,
  axes: ScalingRequest["parallel"],
): Promise<ScalingMeasurement> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const found = await Promise.all(
    [0, 1].map((rank) =>
      child({
        sizes,
        microBatches: MICRO_BATCHES,
        repeats: REPEATS,
        threads: 1,
        parallel: axes,
        group: { name, rank, size: 2 },
      }),
    ),
  );
  return {
    seconds: Math.max(...found.map(({ seconds }) => seconds)),
    waiting: Math.min(...found.map(({ waiting }) => waiting)),
  };
}

async function child(request: ScalingRequest): Promise<ScalingMeasurement> {
  const entry = join(root, "build/benchmarks/scaling-child.js");
  const { stdout } = await promisify(execFile)(process.execPath, [entry, JSON.stringify(request)]);
  return JSON.parse(stdout) as ScalingMeasurement;
}
