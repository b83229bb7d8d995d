/** Runs the workers of a run as processes of this machine. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Assignment } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { LocalCrew } from "./local-crew.ts";
import { startOfProcess } from "./machine-clock.ts";
import { supervise } from "./supervise.ts";
import type { SuperviseOptions } from "./supervise-options.ts";

export interface LaunchOptions
  extends Omit<Assignment, "job" | "number" | "group" | "network" | "startedAt"> {
  /** The folder of the job, or a function that makes it while the worker processes start. */
  readonly job: string | (() => Promise<string>);
  readonly workers: number;
  /** Workers beyond this number stand by. Default: none. */
  readonly maxWorkers?: number;
  /** So many workers of a machine divide the model among them. Default: 1. */
  readonly together?: number | undefined;
  /** With fewer workers the run waits. Default: 1. */
  readonly minWorkers?: number;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /** Is given the workers before the first of them starts. */
  readonly onWorkers?: SuperviseOptions["onWorkers"] | undefined;
}

/**
 * Resolves when the run has ended successfully. A worker that is lost is replaced, and the others go
 * on meanwhile.
 * @throws what a worker threw; PEER_LOST when workers are lost again and again without a new step; or
 *   the error of making the job
 */
export async function launchLocal(options: LaunchOptions): Promise<TrainResult["outcome"]> {
  const {
    job,
    onEvent,
    signal,
    onWorkers,
    minWorkers = 1,
    workers,
    maxWorkers = workers,
    together,
    ...shared
  } = options;
  const places = Array.from({ length: workers }, (_, index) => ({
    name: `${index}`,
    node: hostname(),
  }));
  const group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  const folder = typeof job === "string" ? Promise.resolve(job) : job();
  const assignment = folder.then((path) => {
    return { ...shared, job: path, group, startedAt: startOfProcess() };
  });
  return supervise({
    minWorkers,
    maxWorkers,
    together,
    crew: (events) => new LocalCrew({ places, assignment }, events),
    onEvent,
    signal,
    onWorkers,
  });
}
