/** How many workers can share a step. */
import { LockstepError } from "../errors.ts";

/** The sizes of the axes along which workers share a step. Default: 1. */
export interface Axes {
  readonly data?: number | undefined;
  readonly shard?: number | undefined;
  readonly tensor?: number | undefined;
  readonly context?: number | undefined;
  readonly pipeline?: number | undefined;
}

/** The number of workers that compute the same micro-batches together. */
export function workersOfBatch({ tensor = 1, context = 1, pipeline = 1 }: Axes = {}): number {
  return tensor * context * pipeline;
}

/**
 * @throws INVALID_OPTION for more workers than micro-batches, because each needs at least one, or a
 *   part of one
 */
export function checkWorkers(workers: number, microBatches: number, parallel?: Axes): void {
  if (workers / workersOfBatch(parallel) <= microBatches) return;
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
 * stay as they are, so such a run needs all its workers (`leastWorkers`), and so does one whose
 * model is divided.
 */
export function axesFor(parallel: Axes | undefined, workers: number): Axes | undefined {
  const { data = 1, shard = 1 } = parallel ?? {};
  const isFixed = (data > 1 && shard > 1) || workersOfBatch(parallel) > 1;
  if (parallel === undefined || isFixed) return parallel;
  return shard > 1 ? { shard: workers } : { data: workers };
}

/** The fewest workers with which a run goes on. */
export function leastWorkers(parallel: Axes | undefined): number {
  const { data = 1, shard = 1 } = parallel ?? {};
  const parts = workersOfBatch(parallel);
  return (data > 1 && shard > 1) || parts > 1 ? data * shard * parts : 1;
}
