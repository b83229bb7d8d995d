/** How many worker processes a run gets, from what was asked for and what there is. */
import { LockstepError } from "../errors.ts";

/** A number, or as many as the machine has cores for. */
export type WorkersAsked = number | "cores";

export interface WorkersRequest {
  /** Of each machine; undefined: 1. */
  readonly asked: WorkersAsked | undefined;
  /** Of each worker, where that was asked for. */
  readonly threads: number | undefined;
  /** Of this machine. */
  readonly cores: number;
  /** Of a step: no worker is without one. */
  readonly microBatches: number;
  /** How many machines share the run; undefined: this one, without agents. */
  readonly hosts: number | undefined;
}

export interface Workers {
  /** Of each machine. */
  readonly each: number;
  readonly all: number;
}

/** Throws INVALID_OPTION for more workers than micro-batches. */
export function workersFor(request: WorkersRequest): Workers {
  const { asked = 1, threads = 1, cores, microBatches, hosts } = request;
  if (asked === "cores") {
    if (hosts === undefined) {
      const each = Math.max(1, Math.min(Math.floor(cores / threads), microBatches));
      return { each, all: each };
    }
    throw new LockstepError(
      "INVALID_OPTION",
      "--workers cores is for one machine: this one does not know the cores of --hosts.",
      { hint: "Say how many workers each host runs, as in --workers 2." },
    );
  }
  const workers = { each: asked, all: asked * (hosts ?? 1) };
  if (workers.all <= microBatches) return workers;
  throw new LockstepError(
    "INVALID_OPTION",
    `A step of ${microBatches} micro-batches cannot be shared by ${workers.all} workers.`,
    {
      hint: `Set microBatches in the run to ${workers.all} or more (the weights depend on it, and on nothing else), or use fewer workers.`,
      fields: { workers: workers.all, microBatches },
    },
  );
}
