/** Into how many parts a batch is cut, where the run file does not say so. */
import { planLoss } from "../plan/index.ts";
import type { Run } from "./run.ts";
import { overrideRun } from "./run.ts";

/** The most micro-batches that a run gets without having said so, and the fewest samples of each. */
const MOST_PARTS = 8;
const LEAST_SAMPLES = 2;

/**
 * The run with a number of micro-batches: its own, else that of the checkpoint it goes on from, else one that follows from
 * the batch and the model alone, so that the weights are the same for any number of workers.
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
    // Statistics over a batch are others over its parts: who wants them cut says so.
    if (part.states.length > 0) return 1;
    planLoss(part, parts);
    return parts;
  } catch {
    // A loss that cannot be made from parts, or a model that can be had for some sizes only. What else is wrong is said when it
    // is built.
    return 1;
  }
}
