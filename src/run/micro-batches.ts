/** Chooses the number of micro-batches when the run file does not state it. */
import { planLoss } from "../plan/index.ts";
import type { Run } from "./run.ts";
import { overrideRun } from "./run.ts";

/**
 * The largest number of micro-batches that is chosen, and the smallest number of samples of each.
 */
const MOST_PARTS = 8;
const LEAST_SAMPLES = 2;

/**
 * Returns the run with a number of micro-batches: its own, else that of its checkpoint, else one
 * that follows from the batch and the model alone, so that the weights are the same for any number
 * of workers.
 */
export function settleMicroBatches(run: Run, found?: string): Run {
  if (run.stated.microBatches !== undefined) return run;
  const before = Number(found);
  const isUsable = Number.isSafeInteger(before) && before > 0 && run.batch % before === 0;
  return overrideRun(run, { microBatches: isUsable ? before : defaultMicroBatches(run) });
}

function defaultMicroBatches({ batch, model }: Run): number {
  let parts = MOST_PARTS;
  while (parts > 1 && (batch % parts !== 0 || batch / parts < LEAST_SAMPLES)) parts /= 2;
  if (parts === 1) return 1;
  try {
    const part = model.build({ batch: batch / parts, mode: "train" });
    // Batch statistics change when a batch is cut, so such a model is cut only on request.
    if (part.states.length > 0) return 1;
    planLoss(part, parts);
    return parts;
  } catch {
    // The loss cannot be computed from parts, or the model cannot be built for this size. Other
    // errors are reported when it is built.
    return 1;
  }
}
