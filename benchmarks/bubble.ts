/**
 * How much do four workers of a pipeline wait, by timetable? Each worker has a part of a core, so that
 * four of them do not compete for two: what one does not use while it waits is lost, as on machines
 * of their own.
 */
import { availableParallelism } from "node:os";
import { measureGroup } from "./group.ts";
import type { GptSizes } from "./peers.ts";
import { openQuotas } from "./quota.ts";
import { type Benchmark, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { ScalingRequest } from "./scaling-child.ts";

/** Eight equal layers, and next to nothing in embedding and head. */
const SIZES: GptSizes = {
  layers: 8,
  width: 384,
  heads: 6,
  context: 128,
  batch: 8,
  vocabulary: 65,
};
const WORKERS = 4;
const [REPEATS, ROUNDS] = [3, 3];
/** A fifth of the processor is left to other programs. */
const SHARE = Math.min(1, (0.8 * availableParallelism()) / WORKERS);
/** The formulas of the papers (docs/pipeline.md), for parts that take equally long. */
const TIMETABLES: Record<string, (workers: number, microBatches: number) => number> = {
  "1f1b": (workers, count) => (workers - 1) / (count + workers - 1),
  "zb-h1": (workers, count) => (workers - 1) / (3 * count + workers - 1),
  "zb-h1+2": (workers, count) => (workers - 1) / (3 * count + workers - 1),
  interleaved: (workers, count) => (workers - 1) / (2 * count + workers - 1),
  "zb-v": (workers, count) => (workers - 1) / (6 * count + workers - 1),
};
const FORMER = "1f1b";

export const bubble: Benchmark = {
  name: "bubble",
  question: `training steps of a pipeline over ${WORKERS} workers by timetable, against 1F1B and against the formulas of the papers`,
  run: async () => {
    const quotas = openQuotas(WORKERS, SHARE);
    if (quotas === undefined) {
      return { rows: [], missing: ["control groups that bound the processor (Linux, as root)"] };
    }
    try {
      return { rows: await measureAll((rank) => quotas.prefix(rank)), missing: [] };
    } finally {
      quotas.close();
    }
  },
};

type Measured = { readonly speed: number; readonly waiting: number };

async function measureAll(prefixOf: (rank: number) => readonly string[]): Promise<Row[]> {
  const microBatches = SIZES.batch;
  const request = { sizes: SIZES, microBatches, threads: 1, repeats: REPEATS };
  const of = (timetable: ScalingRequest["timetable"]) => async (): Promise<Measured> => {
    const own = { ...request, parallel: { pipeline: WORKERS }, timetable };
    const found = await measureGroup(own, WORKERS, prefixOf);
    return {
      speed: (SIZES.batch * SIZES.context) / Math.max(...found.map(({ seconds }) => seconds)),
      waiting: found.reduce((sum, { waiting }) => sum + waiting, 0) / WORKERS,
    };
  };
  const measures = Object.fromEntries(
    Object.keys(TIMETABLES).map((name) => [name, of(name as ScalingRequest["timetable"])]),
  );
  const found = await takeTurns<Record<string, Measured>>(measures, ROUNDS);
  const speeds = (name: string) => (found[name] ?? []).map(({ speed }) => speed);
  const busy = (name: string) => 1 - (TIMETABLES[name]?.(WORKERS, microBatches) ?? 0);
  return Object.keys(TIMETABLES).flatMap((name): Row[] => {
    const waits = {
      case: `${name}, ${microBatches} micro-batches: workers wait`,
      value: 100 * median((found[name] ?? []).map(({ waiting }) => waiting)),
      unit: "% of a step",
      peer: "formula",
      peerValue: 100 * (1 - busy(name)),
    };
    if (name === FORMER) return [compared(waits)];
    const predicted = busy(name) / busy(FORMER);
    const faster = compared(
      {
        case: `${name}, ${microBatches} micro-batches: speed (the formulas say ${predicted.toFixed(2)}x)`,
        value: median(speeds(name)),
        unit: "tokens/s",
        peer: FORMER,
        peerValue: median(speeds(FORMER)),
        ratio: ratioOf(speeds(name), speeds(FORMER)),
        goal: "more than 1x",
      },
      1,
    );
    return [compared(waits), faster];
  });
}
