/** Runs the workers of a run as processes of this machine. */
import { hostname } from "node:os";
import type { Assignment } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { supervise } from "./supervise.ts";

export interface LaunchOptions extends Omit<Assignment, "job" | "rank" | "meeting" | "startedAt"> {
  /** The folder of the job, or a function that makes it while the worker processes start. */
  readonly job: string | (() => Promise<string>);
  /** With fewer workers the run waits. Default: 1. */
  readonly minWorkers?: number;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
}

/**
 * Resolves when the run has ended successfully. A worker that is lost is replaced, and the others go
 * on meanwhile.
 * @throws what a worker threw; PEER_LOST when workers are lost again and again without a new step; or
 *   the error of making the job
 */
export async function launchLocal(options: LaunchOptions): Promise<TrainResult["outcome"]> {
  const { job, onEvent, signal, workers, minWorkers = 1, ...shared } = options;
  const places = Array.from({ length: workers }, (_, index) => ({
    name: `${index}`,
    node: hostname(),
  }));
  return supervise({
    membership: { minWorkers, maxWorkers: workers, places },
    assignment: { ...shared, startedAt: performance.timeOrigin },
    job: typeof job === "string" ? Promise.resolve(job) : job(),
    onEvent,
    signal,
  });
}
