/**
 * The ways to share a step that are compared with one process, as data: a way that is new needs a
 * row. One that is refused is shown with the sentence that says why.
 */
import type { Setting } from "../test/support/shared-runs.ts";

/** Sizes of the axes; an axis that this revision does not know is refused. */
type Sizes = Readonly<
  Partial<Record<"data" | "shard" | "context" | "tensor" | "pipeline" | "expert", number>>
>;

export interface Way extends Omit<Setting, "parallel"> {
  readonly parallel?: Sizes;
  /** Whether real processes run it, too. */
  readonly inProcesses?: boolean;
}

/** The axes that change the order of additions. All others leave every bit as it is. */
const ROUNDS = ["context", "tensor", "expert"] as const;

const again = { recompute: "blocks" } as const;
const away = { offload: "disk" } as const;
const finer = { microBatches: 8 } as const;

/** Alone, each of them. */
const ALONE: readonly Way[] = [
  again,
  away,
  { parallel: { data: 2 }, inProcesses: true },
  { parallel: { data: 4 } },
  { parallel: { data: 8 }, ...finer },
  { parallel: { data: 2 }, zero: 1 },
  { parallel: { data: 2 }, zero: 2 },
  { parallel: { shard: 2 } },
  { parallel: { shard: 4 }, inProcesses: true },
  { parallel: { shard: 8 }, ...finer },
  { parallel: { pipeline: 2 }, inProcesses: true },
  { parallel: { pipeline: 4 } },
  { parallel: { pipeline: 2 }, timetable: "gpipe" },
  { parallel: { pipeline: 2 }, timetable: "1f1b" },
  { parallel: { pipeline: 2 }, timetable: "interleaved" },
  { parallel: { pipeline: 2 }, timetable: "zb-v" },
  { parallel: { tensor: 2 }, inProcesses: true },
  { parallel: { tensor: 4 } },
  { parallel: { context: 2 }, inProcesses: true },
  { parallel: { context: 4 } },
  { parallel: { context: 2 }, attention: "ring" },
  { parallel: { context: 4 }, attention: "ring" },
  { parallel: { expert: 2 } },
  { parallel: { expert: 4 } },
];

const COMBINED: readonly Way[] = [
  { ...again, ...away },
  { parallel: { data: 2 }, ...again },
  { parallel: { data: 2 }, zero: 1, ...away },
  { parallel: { data: 2, shard: 2 } },
  { parallel: { data: 2, shard: 2 }, zero: 1 },
  { parallel: { data: 2, shard: 2 }, zero: 2, ...again },
  { parallel: { shard: 2 }, ...again, ...away },
  { parallel: { data: 2, shard: 4 }, ...finer, ...again, ...away },
  { parallel: { data: 2, pipeline: 2 }, inProcesses: true },
  { parallel: { data: 4, pipeline: 2 }, ...finer },
  { parallel: { pipeline: 2 }, ...again },
  { parallel: { pipeline: 2 }, ...away },
  { parallel: { data: 2, pipeline: 2 }, ...again, ...away },
  { parallel: { data: 2, pipeline: 4 }, ...finer },
  { parallel: { shard: 2, pipeline: 2 }, inProcesses: true },
  { parallel: { shard: 2, pipeline: 2 }, zero: 1 },
  { parallel: { shard: 2, pipeline: 2 }, zero: 2 },
  { parallel: { shard: 2, pipeline: 2 }, zero: 2, timetable: "interleaved", ...finer },
  { parallel: { shard: 2, pipeline: 2 }, timetable: "zb-v", ...finer },
  { parallel: { shard: 2, pipeline: 2 }, ...again },
  { parallel: { shard: 2, pipeline: 2 }, ...away },
  { parallel: { data: 2, pipeline: 2 }, zero: 2 },
  { parallel: { data: 2, shard: 2, pipeline: 2 }, ...finer },
  { parallel: { data: 2, shard: 2, pipeline: 2 }, zero: 2, ...finer },
  { parallel: { shard: 2, pipeline: 2, tensor: 2 } },
  { parallel: { shard: 2, pipeline: 2, tensor: 2 }, zero: 2 },
  { parallel: { shard: 2, pipeline: 2, context: 2 } },
  { parallel: { data: 2, pipeline: 2 }, zero: 1 },
  { parallel: { data: 2, tensor: 2 }, inProcesses: true },
  { parallel: { data: 2, tensor: 4 } },
  { parallel: { data: 2, tensor: 2 }, zero: 1 },
  { parallel: { data: 2, tensor: 2 }, zero: 2 },
  { parallel: { shard: 2, tensor: 2 }, zero: 1 },
  { parallel: { shard: 2, tensor: 2 } },
  { parallel: { tensor: 2 }, ...again },
  { parallel: { tensor: 2 }, ...away },
  { parallel: { data: 2, context: 2 } },
  { parallel: { data: 2, context: 2 }, zero: 1 },
  { parallel: { data: 2, context: 2, tensor: 2 }, attention: "ring" },
  { parallel: { shard: 2, pipeline: 2, context: 2 }, attention: "ring" },
  { parallel: { data: 2, context: 2 }, zero: 2 },
  { parallel: { shard: 2, context: 2 }, zero: 1 },
  { parallel: { shard: 2, context: 2 } },
  { parallel: { context: 2 }, ...again },
  { parallel: { context: 2 }, ...away },
  { parallel: { context: 2, tensor: 2 }, inProcesses: true },
  { parallel: { context: 2, tensor: 4 } },
  { parallel: { context: 4, tensor: 2 } },
  { parallel: { context: 2, tensor: 2 }, ...again },
  { parallel: { pipeline: 2, tensor: 2 } },
  { parallel: { pipeline: 2, context: 2 } },
  { parallel: { pipeline: 2, context: 2, tensor: 2 } },
  { parallel: { data: 2, expert: 2 } },
  { parallel: { expert: 2, tensor: 2 } },
  { parallel: { expert: 2, context: 2 } },
  { parallel: { pipeline: 2, expert: 2 } },
  { parallel: { data: 2, context: 2, tensor: 2 } },
  { parallel: { data: 2, pipeline: 2, tensor: 2 } },
  { parallel: { data: 2, pipeline: 2, context: 2 } },
  { parallel: { data: 2, shard: 2, tensor: 2 }, zero: 1 },
  { parallel: { data: 2, shard: 2, context: 2 }, zero: 1 },
  { parallel: { data: 2, tensor: 2 }, zero: 1, ...again },
  { parallel: { data: 2, context: 2 }, zero: 1, ...again, ...away },
  { parallel: { shard: 2, context: 2, tensor: 2 }, zero: 1 },
  { parallel: { data: 2, context: 2, tensor: 2 }, zero: 1, ...again },
  { parallel: { data: 2, context: 2, tensor: 2 }, zero: 1, ...again, ...away },
  { parallel: { data: 2, pipeline: 2, tensor: 2 }, ...again },
  { parallel: { data: 2, pipeline: 2, expert: 2 } },
];

export const WAYS: readonly Way[] = [...ALONE, ...COMBINED];

/** The number of micro-batches of a step where a way states none. */
export const MICRO_BATCHES = 4;

/** In the words of a run: `data 2, tensor 2, zero 1`. */
export function nameOf({ parallel = {}, ...way }: Way): string {
  const { zero, timetable, attention, microBatches, recompute, offload } = way;
  const words = [
    ...Object.entries(parallel).map(([axis, own]) => `${axis} ${own}`),
    ...(zero === undefined ? [] : [`zero ${zero}`]),
    ...(timetable === undefined ? [] : [timetable]),
    ...(attention === undefined ? [] : [attention]),
    ...(recompute === undefined ? [] : ["recompute"]),
    ...(offload === undefined ? [] : ["offload"]),
    ...(microBatches === undefined ? [] : [`${microBatches} micro-batches`]),
  ];
  return words.length === 0 ? "one process" : words.join(", ");
}

/**
 * The way whose bits a way has: with its axes that change the order of additions, and no others. For
 * most it is one process.
 */
export function rootOf({ parallel = {}, attention, microBatches }: Way): Way {
  const kept = ROUNDS.flatMap((axis) => {
    const own = parallel[axis];
    return own === undefined ? [] : [[axis, own] as const];
  });
  return {
    ...(kept.length === 0 ? {} : { parallel: Object.fromEntries(kept) }),
    ...(attention === undefined ? {} : { attention }),
    ...(microBatches === undefined ? {} : { microBatches }),
  };
}
