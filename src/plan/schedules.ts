/**
 * The timetables that have a name. Each is that of its paper, for any number of ranks and
 * micro-batches.
 */
import type { StagePart } from "./step-graph.ts";
import {
  type Direction,
  parseTimetable,
  ranksOfStages,
  type Timetable,
  type TimetableSize,
  type Turn,
} from "./timetable.ts";

export const SCHEDULES = ["1f1b", "gpipe", "zb-h1", "interleaved", "zb-v"] as const;
/**
 * `interleaved-3` has three stages on each rank; `interleaved` has two. In `zb-h1+2` ranks are two
 * micro-batches further ahead than in `zb-h1`.
 */
export type ScheduleName = (typeof SCHEDULES)[number] | `interleaved-${number}` | `zb-h1+${number}`;
/** It takes the memory of `1f1b` in the rank that has most, and waits least of one stage a rank. */
export const DEFAULT_SCHEDULE: ScheduleName = "zb-h1";

/**
 * - `gpipe`: all forward parts, then all backward parts (Huang et al., "GPipe", 2019). All
 *   micro-batches are in memory at once.
 * - `1f1b`: each rank does a backward part as soon as it can (Narayanan et al., "PipeDream", 2019,
 *   with the flush of "Megatron-LM", 2021). As many micro-batches are in memory as stages follow.
 * - `zb-h1`: as `1f1b`, but stage s computes its W s micro-batches later, so that the stage before
 *   has its gradients sooner (Qi et al., "Zero Bubble Pipeline Parallelism", 2023). One micro-batch
 *   more is in memory. No stage comes before stage 0, whose backward part stays whole.
 * - `zb-h1+n`: ranks are n forward parts further ahead of their backward parts, and W comes n - 1
 *   micro-batches later. A rank that is slow for a moment then makes nobody wait, for up to
 *   2n - 1 micro-batches more in memory (docs/lab.md).
 * - `interleaved`: `1f1b` with several stages on each rank.
 * - `zb-v`: two stages on each rank, along a V, with backward parts in two.
 */
export function timetableOf(name: ScheduleName, size: TimetableSize): Timetable {
  if (name === "zb-v") return alongV(size);
  const number = /\d+$/.exec(name.replace("zb-h1", ""))?.[0];
  if (name.startsWith("interleaved")) return interleaved(size, Number(number ?? 2));
  return oneStageEach(name, size, Number(number ?? 0));
}

export function isSchedule(name: string): name is ScheduleName {
  return (
    (SCHEDULES as readonly string[]).includes(name) ||
    /^(interleaved-([2-9]|[1-9]\d)|zb-h1\+[1-9]\d?)$/.test(name)
  );
}

/** The timetable that has a name, or that a text is. @throws INVALID_OPTION as `parseTimetable` */
export function readTimetable(schedule: string, size: TimetableSize): Timetable {
  return isSchedule(schedule) ? timetableOf(schedule, size) : parseTimetable(schedule);
}

/**
 * The timetable for a pass that is cut into stages. Where nothing of a stage can be computed later, a
 * timetable that has a name leaves out its W: B is then the whole backward part.
 * @param parts those of the stages
 * @throws INVALID_OPTION as `parseTimetable`
 */
export function timetableOfStages(
  schedule: string,
  size: TimetableSize,
  parts: readonly (StagePart | undefined)[],
): Timetable {
  const timetable = readTimetable(schedule, size);
  if (!isSchedule(schedule)) return timetable;
  const later = new Set(parts.map((part) => (part?.direction === "W" ? part.stage : undefined)));
  return timetable.map((turns) =>
    turns.filter(({ stage, direction }) => direction !== "W" || later.has(stage)),
  );
}

/** By stage: the rank that computes it. @throws INVALID_OPTION as `ranksOfStages` */
export function stageRanks(schedule: string, ranks: number): readonly number[] {
  return ranksOfStages(readTimetable(schedule, { ranks, microBatches: 1 }), ranks);
}

/** @param slack the forward parts by which ranks are further ahead than they have to be */
function oneStageEach(
  name: ScheduleName,
  { ranks, microBatches }: TimetableSize,
  slack: number,
): Timetable {
  return Array.from({ length: ranks }, (_, stage) => {
    // The last stage has its backward part ready at once.
    const further = ranks - stage + (stage < ranks - 1 ? slack : 0);
    const ahead = name === "gpipe" ? microBatches : Math.min(microBatches, further);
    const isSplit = name.startsWith("zb-h1") && stage > 0;
    const delay = isSplit ? stage + Math.max(0, slack - 1) : undefined;
    const line = new Line(microBatches);
    for (let at = 0; at < microBatches + ahead - 1 + (delay ?? 0); at++) {
      line.add(stage, "F");
      if (at >= ahead - 1) line.add(stage, "B");
      if (delay !== undefined && at >= ahead - 1 + delay) line.add(stage, "W");
    }
    return line.turns;
  });
}

/**
 * Stage s is on rank s mod `ranks` (Narayanan et al., "Efficient Large-Scale Language Model Training
 * on GPU Clusters Using Megatron-LM", 2021, section 2.2). Micro-batches go in rounds of as many as
 * there are ranks: all of a round through a rank's first stage, then all through its next one. If
 * they do not fill the last round, it has gaps.
 */
function interleaved({ ranks, microBatches }: TimetableSize, each: number): Timetable {
  const count = Math.ceil(microBatches / ranks) * ranks * each;
  const turnOf = (at: number) => Math.floor(at / ranks) % each;
  return Array.from({ length: ranks }, (_, rank) => {
    const ahead = Math.min(count, 2 * (ranks - rank - 1) + (each - 1) * ranks + 1);
    const line = new Line(microBatches);
    for (let at = 0; at < count + ahead - 1; at++) {
      const behind = at - ahead + 1;
      if (at < count) line.add(turnOf(at) * ranks + rank, "F");
      if (behind >= 0) line.add((each - 1 - turnOf(behind)) * ranks + rank, "B");
    }
    return line.turns;
  });
}

/**
 * Rank r has stage r on the way down and stage 2·ranks − 1 − r on the way up, so that the last stage
 * is on the rank of the first (ZB-V: Qi et al., "Zero Bubble Pipeline Parallelism", 2023, section 6,
 * and "Pipeline Parallelism with Controllable Memory", 2024). If F, B and W take equally long, no
 * rank waits once it has begun, with 2·ranks − 1 micro-batches or more. Fewer leave gaps.
 */
function alongV({ ranks, microBatches }: TimetableSize): Timetable {
  const count = Math.max(microBatches, 2 * ranks - 1);
  return Array.from({ length: ranks }, (_, rank) => {
    const [down, up] = [rank, 2 * ranks - 1 - rank];
    const line = new Line(microBatches);
    const times = (most: number, add: () => void) => {
      for (let at = 0; at < most; at++) add();
    };
    const whole = (stage: number) => line.add(stage, "F", "B", "W");
    const backward = (stage: number) => line.add(stage, "B", "W");
    // Forward down to the last stage and up again.
    times(up - rank, () => line.add(down, "F"));
    times(rank, () => {
      line.add(up, "F");
      line.add(down, "F");
    });
    times(ranks - rank, () => whole(up));
    // All in turns.
    times(count - up, () => {
      line.add(down, "F");
      backward(down);
      whole(up);
    });
    times(up - ranks, () => {
      backward(down);
      whole(up);
    });
    // Backward; W when nobody waits any more.
    times(rank, () => line.add(down, "B").add(up, "B"));
    times(ranks - rank, () => backward(down));
    times(rank, () => line.add(up, "W"));
    times(rank, () => line.add(down, "W"));
    return line.turns;
  });
}

/** The turns of a rank in the making. */
class Line {
  readonly turns: Turn[] = [];
  readonly #microBatches: number;
  /** By part of a stage: its next micro-batch. */
  readonly #next = new Map<string, number>();

  constructor(microBatches: number) {
    this.#microBatches = microBatches;
  }

  /** Adds parts of a stage for the next micro-batch of each, if there is one. */
  add(stage: number, ...directions: readonly Direction[]): this {
    for (const direction of directions) {
      const part = `${stage}${direction}`;
      const microBatch = this.#next.get(part) ?? 0;
      this.#next.set(part, microBatch + 1);
      // Nothing comes before stage 0, whose backward part stays whole.
      if (microBatch >= this.#microBatches || part === "0W") continue;
      this.turns.push({ stage, direction, microBatch });
    }
    return this;
  }
}
