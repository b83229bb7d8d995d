/**
 * How much memory does each of four workers take, and what does it cost, when more of a run's state
 * is sharded?
 */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { MemoryMeasurement, MemoryRequest } from "./memory-child.ts";
import type { GptSizes } from "./peers.ts";
import { type Benchmark, compared, type Row } from "./report.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
/** Sizes at which parameters, gradients and slots outweigh activations. */
const SIZES: GptSizes = {
  layers: 12,
  width: 512,
  heads: 8,
  context: 64,
  batch: 4,
  vocabulary: 256,
};
const WORKERS = 4;
const MICRO_BATCHES = 4;
const REPEATS = 5;
const STAGES = [
  ["data", undefined],
  ["zero 1", 1],
  ["zero 2", 2],
  ["zero 3", 3],
] as const;

export const memory: Benchmark = {
  name: "memory",
  question:
    "peak memory of each of 4 workers, against what `lockstep plan` predicts, and tokens/s against `data`",
  run: measureAll,
};

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  if (process.platform !== "linux") return { rows: [], missing: ["Linux: /proc tells the peaks"] };
  const rows: Row[] = [];
  let data: number | undefined;
  for (const [name, zero] of STAGES) {
    const found = await measure(zero);
    const peak = Math.max(...found.map(({ peakBytes }) => peakBytes));
    const [first] = found as [MemoryMeasurement];
    const planned = Math.max(...found.map(({ plannedBytes }) => plannedBytes));
    const ratio = peak / planned;
    rows.push({
      ...mebibytes(`${name}: peak of a worker`, peak),
      peer: "planned",
      peerValue: planned / 2 ** 20,
      ratio,
      goal: "within 10%",
      reached: ratio >= 0.9 && ratio <= 1.1,
    });
    for (const [kind, bytes] of Object.entries(first.planned)) {
      rows.push(mebibytes(`${name}: planned, ${kind}`, bytes));
    }
    if (zero === 3) rows.push(promised(first, peak));
    const seconds = Math.max(...found.map((each) => each.seconds));
    const speed = (SIZES.batch * SIZES.context) / seconds;
    data ??= speed;
    const row = { case: `${name}: speed`, value: speed, unit: "tokens/s" };
    rows.push(zero === undefined ? row : compared({ ...row, peer: "data", peerValue: data }));
  }
  return { rows, missing: [] };
}

/**
 * Returns a row with the goal: a quarter of 16 bytes per parameter, two gathered blocks, and
 * activations.
 */
function promised({ planned, parameterBytes }: MemoryMeasurement, peak: number): Row {
  const kinds = ["gathered units", "between pieces", "within a piece"];
  const rest = kinds.reduce((sum, kind) => sum + (planned[kind] ?? 0), 0);
  const bytes = (4 * parameterBytes) / WORKERS + rest;
  const ratio = peak / bytes;
  return {
    ...mebibytes("zero 3: peak of a worker", peak),
    peer: "16 bytes × parameters / 4 + two gathered blocks + activations",
    peerValue: bytes / 2 ** 20,
    ratio,
    goal: "at most 1.2x",
    reached: ratio <= 1.2,
  };
}

function mebibytes(name: string, bytes: number): Row {
  return { case: name, value: bytes / 2 ** 20, unit: "MiB" };
}

function measure(zero: MemoryRequest["zero"]): Promise<MemoryMeasurement[]> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const entry = join(root, "build/benchmarks/memory-child.js");
  return Promise.all(
    Array.from({ length: WORKERS }, async (_, rank) => {
      const group = { name, rank, size: WORKERS };
      const request = { sizes: SIZES, microBatches: MICRO_BATCHES, repeats: REPEATS, zero, group };
      const words = [entry, JSON.stringify(request)];
      const { stdout } = await promisify(execFile)(process.execPath, words);
      return JSON.parse(stdout) as MemoryMeasurement;
    }),
  );
}
