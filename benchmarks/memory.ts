/**
 * How much memory does each of four workers take, and what does it cost, when more of a run's state
 * is sharded?
 */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { WORKER_FLAGS } from "../src/launch/index.ts";
import type { ParallelOptions } from "../src/parallel/index.ts";
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
/**
 * For the promise of ZeRO 3: so much state that a process itself weighs little beside its quarter.
 */
const LARGE: GptSizes = { ...SIZES, layers: 24, width: 768 };
/** For the speed of ZeRO 3: the step that `scaling` measures. */
const USUAL: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const WORKERS = 4;
const MICRO_BATCHES = 4;
const REPEATS = 3;
const ROUNDS = 3;
const DATA: ParallelOptions = { parallel: { data: WORKERS } };
const STAGES: readonly (readonly [name: string, sharing: ParallelOptions])[] = [
  ["data", DATA],
  ["zero 1", { zero: 1 }],
  ["zero 2", { zero: 2 }],
  ["zero 3", { zero: 3 }],
  ["hybrid (data 2, shard 2)", { parallel: { data: 2, shard: 2 } }],
  ["recompute (blocks)", { ...DATA, recompute: "blocks" }],
  ["zero 3, recompute (blocks)", { zero: 3, recompute: "blocks" }],
  ["data, offload (disk)", { ...DATA, offload: "disk" }],
  ["zero 3, offload (disk)", { zero: 3, offload: "disk" }],
  ["pipeline 4", { parallel: { pipeline: WORKERS } }],
  [
    "pipeline 4, recompute (blocks), offload (disk)",
    { parallel: { pipeline: WORKERS }, recompute: "blocks", offload: "disk" },
  ],
];

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
  for (const [name, sharing] of STAGES) {
    const found = await measure(WORKERS, { sizes: SIZES, repeats: REPEATS, sharing, looks: true });
    rows.push(...predicted(name, found));
    const speed = (SIZES.batch * SIZES.context) / secondsOf(found);
    const row = { case: `${name}: speed`, value: speed, unit: "tokens/s" };
    rows.push(data === undefined ? row : compared({ ...row, peer: "data", peerValue: data }));
    data ??= speed;
  }
  const large = { sizes: LARGE, repeats: 1, sharing: { zero: 3 }, looks: true } as const;
  rows.push(...promised(await measure(WORKERS, large)));
  rows.push(await speedOfTwo());
  return { rows, missing: [] };
}

function predicted(name: string, found: readonly MemoryMeasurement[]): Row[] {
  const [first] = found as [MemoryMeasurement];
  const planned = Math.max(...found.map(({ plannedBytes }) => plannedBytes));
  const peak = peakOf(found);
  const ratio = peak / planned;
  const row = {
    ...mebibytes(`${name}: peak of a worker`, peak),
    peer: "planned",
    peerValue: planned / 2 ** 20,
    ratio,
    goal: "within 10%",
    reached: ratio >= 0.9 && ratio <= 1.1,
  };
  const kinds = Object.entries(first.planned);
  return [row, ...kinds.map(([kind, bytes]) => mebibytes(`${name}: planned, ${kind}`, bytes))];
}

/** A quarter of 16 bytes a parameter, two gathered blocks, and activations. */
function promised(found: readonly MemoryMeasurement[]): Row[] {
  const [{ planned, parameterBytes }] = found as [MemoryMeasurement];
  const kinds = ["gathered units", "between pieces", "within a piece"];
  const rest = kinds.reduce((sum, kind) => sum + (planned[kind] ?? 0), 0);
  const bytes = (4 * parameterBytes) / WORKERS + rest;
  const name = `zero 3, ${LARGE.layers} layers of width ${LARGE.width}`;
  const ratio = peakOf(found) / bytes;
  const row = {
    ...mebibytes(`${name}: peak of a worker`, peakOf(found)),
    peer: "16 bytes × parameters / 4 + two gathered blocks + activations",
    peerValue: bytes / 2 ** 20,
    ratio,
    goal: "at most 1.2x",
    reached: ratio <= 1.2,
  };
  return [...predicted(name, found), row];
}

/** The machine's speed changes: both are measured in turn, and the best of each counts. */
async function speedOfTwo(): Promise<Row> {
  const best = { data: Number.POSITIVE_INFINITY, zero: Number.POSITIVE_INFINITY };
  const request = { sizes: USUAL, repeats: REPEATS, looks: false };
  for (let round = 0; round < ROUNDS; round++) {
    const data = await measure(2, { ...request, sharing: { parallel: { data: 2 } } });
    const zero = await measure(2, { ...request, sharing: { zero: 3 } });
    best.data = Math.min(best.data, secondsOf(data));
    best.zero = Math.min(best.zero, secondsOf(zero));
  }
  const tokens = USUAL.batch * USUAL.context;
  const row = { case: "zero 3 on 2 workers of 1 thread", value: tokens / best.zero };
  const peer = { peer: "data", peerValue: tokens / best.data, goal: "at least 0.9x" };
  return compared({ ...row, unit: "tokens/s", ...peer }, 0.9);
}

function peakOf(found: readonly MemoryMeasurement[]): number {
  return Math.max(...found.map(({ peakBytes }) => peakBytes));
}

function secondsOf(found: readonly MemoryMeasurement[]): number {
  return Math.max(...found.map(({ seconds }) => seconds));
}

function mebibytes(name: string, bytes: number): Row {
  return { case: name, value: bytes / 2 ** 20, unit: "MiB" };
}

function measure(
  workers: number,
  request: Omit<MemoryRequest, "microBatches" | "group" | "folder">,
): Promise<MemoryMeasurement[]> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const entry = join(root, "build/benchmarks/memory-child.js");
  return Promise.all(
    Array.from({ length: workers }, async (_, rank) => {
      const group = { name, rank, size: workers };
      const own = { microBatches: MICRO_BATCHES, group, folder: join(root, "build") };
      const whole: MemoryRequest = { ...request, ...own };
      const words = [...WORKER_FLAGS, entry, JSON.stringify(whole)];
      const { stdout } = await promisify(execFile)(process.execPath, words);
      return JSON.parse(stdout) as MemoryMeasurement;
    }),
  );
}
