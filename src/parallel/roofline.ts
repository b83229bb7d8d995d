/** How long operators take whose work is known. */
import type { Work } from "../ops/index.ts";

export interface Speeds {
  readonly flopsPerSecond: number;
  /** Undefined: `flopsPerSecond` is the speed of all operators together, with what they move. */
  readonly memorySpeed?: number | undefined;
}

/** The seconds of operators, one after the other (roofline: Williams et al., 2009). */
export function secondsOfWork(
  work: readonly Work[],
  { flopsPerSecond, memorySpeed = Number.POSITIVE_INFINITY }: Speeds,
): number {
  return work.reduce(
    (sum, { flops, bytes }) => sum + Math.max(flops / flopsPerSecond, bytes / memorySpeed),
    0,
  );
}
