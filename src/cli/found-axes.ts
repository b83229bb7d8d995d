/**
 * How workers divide a model of which there are more than micro-batches, where nothing is stated: it
 * is found before the run starts, which then goes on as if it had been stated.
 */
import { statedIn } from "../parallel/index.ts";
import { findParallel, overrideRun, type Run } from "../run/index.ts";
import { memoryLimit } from "../train/index.ts";
import type { TrainFlags } from "./target.ts";

interface Found {
  readonly run: Run;
  readonly flags: TrainFlags;
  /** What was found, in a sentence. */
  readonly told: string | undefined;
}

/** @throws INVALID_OPTION where workers cannot divide the model */
export function withFoundAxes(run: Run, flags: TrainFlags): Found {
  const { workers: asked = 1, hosts } = flags;
  const machines = hosts?.length ?? 1;
  const workers = asked === "cores" ? 1 : asked * machines;
  const isStated = run.parallel !== undefined || run.zero !== undefined;
  // Machines that join later bring workers of which nothing is known now.
  if (isStated || workers <= run.microBatches || flags.listen !== undefined) {
    return { run, flags, told: undefined };
  }
  const memory = machines === 1 ? memoryLimit() / workers : undefined;
  const { stated, reason } = findParallel(run, { workers, machines, memory });
  const found = statedIn(stated);
  return { run: overrideRun(run, found), flags: { ...flags, ...found }, told: reason };
}
