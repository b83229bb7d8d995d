/** How many workers can share a step. */
import { LockstepError } from "../errors.ts";

/** The sizes of the axes along which workers share a step. Default: 1. */
export interface Axes {
  readonly data?: number | undefined;
  readonly shard?: number | undefined;
  readonly tensor?: number | undefined;
  readonly context?: number | undefined;
  readonly expert?: number | undefined;
  readonly pipeline?: number | undefined;
}

/** The number of workers that compute the same micro-batches together. */
export function workersOfBatch(axes: Axes = {}): number {
  const { tensor = 1, context = 1, expert = 1, pipeline = 1 } = axes;
  return tensor * context * expert * pipeline;
}

/** The number of them that are of one machine. */
export function workersOfMachine({ tensor = 1, context = 1, expert = 1 }: Axes = {}): number {
  return tensor * context * expert;
}

/**
 * @throws INVALID_OPTION for more workers than micro-batches, because each needs at least one, or a
 *   part of one
 */
export function checkWorkers(workers: number, microBatches: number, parallel?: Axes): void {
  if (workers / workersOfBatch(parallel) <= microBatches) return;
  throw tooManyWorkers(workers, microBatches);
}

export function tooManyWorkers(workers: number, microBatches: number): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `A step of ${microBatches} micro-batches cannot be shared by ${workers} workers.`,
    {
      hint: `Set microBatches in the run to ${workers} or more (the weights depend on microBatches, and not on the number of workers), or use fewer workers.`,
      fields: { workers, microBatches },
    },
  );
}

/**
 * The stated axes of a run for another number of workers. One axis follows that number; where workers
 * divide the model, `data` does, which makes as many replicas as there are workers for. Fewer workers
 * than divide it, which are left only at the end of a run, have all of it. `data` with `shard` stay as
 * they are.
 */
export function axesFor(parallel: Axes | undefined, workers: number): Axes | undefined {
  const { shard = 1 } = parallel ?? {};
  if (parallel === undefined || isFixed(parallel)) return parallel;
  const parts = workersOfBatch(parallel);
  if (parts > 1 && workers < parts) return { data: workers };
  if (parts > 1) return { ...parallel, data: Math.floor(workers / parts) };
  return shard > 1 ? { shard: workers } : { data: workers };
}

/** Two axes fix the number of workers, and so does `shard` where workers divide the model. */
function isFixed(parallel: Axes): boolean {
  const { data = 1, shard = 1 } = parallel;
  return shard > 1 && (data > 1 || workersOfBatch(parallel) > 1);
}

/** The workers of the stated axes; 1 if one axis follows the number of workers. */
export function statedWorkers(parallel: Axes = {}): number {
  const { data = 1, shard = 1 } = parallel;
  const parts = workersOfBatch(parallel);
  return isFixed(parallel) || parts > 1 ? data * shard * parts : 1;
}

/** The fewest workers with which a run goes on. */
export function leastWorkers(parallel: Axes = {}): number {
  return isFixed(parallel) ? statedWorkers(parallel) : workersOfBatch(parallel);
}
