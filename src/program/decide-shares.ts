/**
 * Decides how many micro-batches each rank computes, from the speeds of all. It is a pure function
 * of numbers that all ranks have, so all decide the same in the same step.
 */
import { assert } from "../errors.ts";
import { type Range, rangesOf } from "./shares.ts";

export interface Decision {
  readonly ranges: readonly Range[];
  /** A sentence for people; undefined where nothing changes. */
  readonly reason: string | undefined;
}

/** A change must save this part of a step: it costs planning, and speeds are measured roughly. */
export const LEAST_GAIN = 0.1;

/**
 * Returns the ranges with which the slowest rank ends first, or `current` if the gain is less than
 * a tenth of a step.
 * Speeds are in micro-batches a second, of any unit that is the same for all.
 */
export function decideShares(
  speeds: readonly number[],
  microBatches: number,
  current: readonly Range[],
): Decision {
  assert(speeds.length === current.length, "every rank has a speed");
  const kept = { ranges: current, reason: undefined };
  if (!speeds.every((speed) => Number.isFinite(speed) && speed > 0)) return kept;
  const counts = fairCounts(speeds, microBatches);
  const before = slowest(
    current.map(({ count }) => count),
    speeds,
  );
  const gain = 1 - slowest(counts, speeds) / before;
  if (gain < LEAST_GAIN) return kept;
  const top = Math.max(...speeds);
  const relative = speeds.map((speed) => (speed / top).toFixed(2)).join(" : ");
  const reason =
    `Workers are as fast as ${relative}: they now compute ${counts.join(" + ")} micro-batches, ` +
    `which saves ${Math.round(100 * gain)}% of a step.`;
  return { ranges: rangesOf(counts), reason };
}

/**
 * Each rank gets one, and each further one goes to the rank that would end it first. No other
 * counts end earlier.
 */
function fairCounts(speeds: readonly number[], microBatches: number): number[] {
  const counts = speeds.map(() => 1);
  for (let given = counts.length; given < microBatches; given++) {
    const ends = counts.map((count, rank) => (count + 1) / (speeds[rank] as number));
    const first = ends.indexOf(Math.min(...ends));
    counts[first] = (counts[first] as number) + 1;
  }
  return counts;
}

/**
 * The part of a step that other ranges would have saved where a micro-batch took each rank `paces`
 * seconds; negative if they would have cost more.
 */
export function savingOf(
  ranges: readonly Range[],
  current: readonly Range[],
  paces: readonly number[],
): number {
  const speeds = paces.map((pace) => 1 / pace);
  const [then, now] = [ranges, current].map((all) =>
    slowest(
      all.map(({ count }) => count),
      speeds,
    ),
  ) as [number, number];
  return 1 - then / now;
}

function slowest(counts: readonly number[], speeds: readonly number[]): number {
  return Math.max(...counts.map((count, rank) => count / (speeds[rank] as number)));
}
