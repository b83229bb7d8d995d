/** How many workers can share a step. */
import { LockstepError } from "../errors.ts";
import type { ParallelOptions } from "./choose.ts";

type Axes = ParallelOptions["parallel"];

/** @throws INVALID_OPTION for more workers than micro-batches, because each needs at least one */
export function checkWorkers(workers: number, microBatches: number): void {
  if (workers <= microBatches) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `A step of ${microBatches} micro-batches cannot be shared by ${workers} workers.`,
    {
      hint: `Set microBatches in the run to ${workers} or more (the weights depend on microBatches, and not on the number of workers), or use fewer workers.`,
      fields: { workers, microBatches },
    },
  );
}

/**
 * The stated axes of a run for another number of workers: one axis follows that number. Two axes
 * stay as they are, so such a run needs all its workers (`leastWorkers`).
 */
export function axesFor(parallel: Axes, workers: number): Axes {
  const { data = 1, shard = 1 } = parallel ?? {};
  if (parallel === undefined || (data > 1 && shard > 1)) return parallel;
  return shard > 1 ? { shard: workers } : { data: workers };
}

/** The fewest workers with which a run goes on. */
export function leastWorkers(parallel: Axes): number {
  const { data = 1, shard = 1 } = parallel ?? {};
  return data > 1 && shard > 1 ? data * shard : 1;
}
