/** How many workers can share a step. */
import { LockstepError } from "../errors.ts";

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
