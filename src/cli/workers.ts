/**
 * Decides how many worker processes a run gets, from what was asked for and the cores of the
 * machine.
 */
import { LockstepError } from "../errors.ts";
import {
  type Axes,
  checkWorkers,
  leastWorkers,
  statedWorkers,
  workersOfBatch,
  workersOfMachine,
} from "../parallel/index.ts";
import { isSchedule } from "../plan/index.ts";
import type { Run } from "../run/index.ts";

/** A number, or one worker for each core of the machine. */
export type WorkersAsked = number | "cores";

export interface WorkersRequest {
  /** The number of workers on each machine. Default: 1. */
  readonly asked: WorkersAsked | undefined;
  /** The number of threads of each worker, if it was given. */
  readonly threads: number | undefined;
  /** The number of cores of this machine. */
  readonly cores: number;
  /** The number of micro-batches of a step: every worker needs at least one. */
  readonly microBatches: number;
  /** How workers share a step, if it was stated. */
  readonly parallel?: Axes | undefined;
  /** The number of machines that share the run. Undefined: this machine alone, without agents. */
  readonly hosts: number | undefined;
}

export interface Workers {
  /** The number of workers on each machine. */
  readonly each: number;
  readonly all: number;
}

/** Throws INVALID_OPTION for more workers than micro-batches. */
export function workersFor(request: WorkersRequest): Workers {
  const { asked = 1, threads = 1, cores, microBatches, parallel, hosts } = request;
  if (asked === "cores") {
    if (hosts === undefined) {
      const each = Math.max(
        1,
        Math.min(Math.floor(cores / threads), microBatches * workersOfBatch(parallel)),
      );
      return { each, all: each };
    }
    throw new LockstepError(
      "INVALID_OPTION",
      "--workers cores is for one machine: this one does not know the cores of --hosts.",
      { hint: "Say how many workers each host runs, as in --workers 2." },
    );
  }
  const workers = { each: asked, all: asked * (hosts ?? 1) };
  checkWorkers(workers.all, microBatches, parallel);
  return workers;
}

/** Two stated axes fix the number of workers; a step cannot be shared by more than its micro-batches. */
export function mostWorkers(
  { maxWorkers, listen }: { readonly maxWorkers?: number; readonly listen?: string },
  run: Pick<Run, "parallel" | "microBatches">,
  workers: number,
): number {
  const fixed = statedWorkers(run.parallel);
  if (fixed > 1) return fixed;
  return Math.min(
    run.microBatches * workersOfBatch(run.parallel),
    maxWorkers ?? (listen === undefined ? workers : Infinity),
  );
}

/** On one machine no workers join, so that a run would wait for ever for those that it lacks. */
export function checkEnough({ parallel }: Pick<Run, "parallel">, workers: number): void {
  const least = statedWorkers(parallel);
  if (least <= workers) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `parallel: these axes need ${least} workers, but the run has ${workers}.`,
    { hint: `Start ${least} workers (--workers ${least}), or state other sizes.` },
  );
}

/** On one machine no workers join, so that --max-workers only says how many of them stand by. */
export function checkSpares(
  { maxWorkers = 0 }: { readonly maxWorkers?: number },
  workers: number,
): void {
  if (maxWorkers < workers) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `With --workers ${workers}, --max-workers ${maxWorkers} lets none stand by.`,
    { hint: "Give a larger --workers: those beyond --max-workers stand by for one that is lost." },
  );
}

/**
 * With how many workers a run goes on, how many belong together, and how many of these are of one
 * machine.
 * @param each the workers of each of several machines
 */
export function groupsOf(
  { parallel, timetable }: Pick<Run, "parallel" | "timetable">,
  minWorkers = 1,
  each?: number,
): { readonly minWorkers: number; readonly together: number; readonly within?: number } {
  // A timetable of one's own is for the micro-batches of so many pipelines.
  const isOwn = timetable !== undefined && !isSchedule(timetable);
  const least = isOwn ? statedWorkers(parallel) : leastWorkers(parallel);
  const together = workersOfBatch(parallel);
  const groups = { minWorkers: Math.max(minWorkers, least), together };
  // Groups that fit a machine do not lie over several.
  if (each === undefined || each % together === 0) return groups;
  const ofMachine = workersOfMachine(parallel);
  return { ...groups, within: each % ofMachine === 0 ? ofMachine : 1 };
}
