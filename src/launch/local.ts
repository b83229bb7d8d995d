/**
 * Starts the workers of a run as processes of this machine and watches them. A worker that fails
 * does not end the others.
 */
import { randomBytes } from "node:crypto";
import type { Assignment } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { WorkerProcess } from "./process.ts";
import { watchWorkers } from "./watch.ts";

export interface LaunchOptions extends Omit<Assignment, "job" | "rank" | "meeting" | "startedAt"> {
  /** The folder of the job, or a function that makes it while the worker processes start. */
  readonly job: string | (() => Promise<string>);
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
}

/**
 * Resolves when all workers have ended successfully.
 * @throws PEER_LOST for a worker that crashed, what a worker threw, or the error of making the job
 */
export async function launchLocal(options: LaunchOptions): Promise<TrainResult["outcome"]> {
  const { job, onEvent, signal, workers, ...shared } = options;
  const group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  const meeting = { kind: "memory", group } as const;
  const all = Array.from(
    { length: workers },
    (_, rank) =>
      new WorkerProcess(rank, (message) => {
        if (message.kind === "event" && rank === 0) onEvent(message.event);
      }),
  );
  let folder: string;
  try {
    folder = typeof job === "string" ? job : await job();
  } catch (error) {
    for (const worker of all) worker.kill();
    await Promise.all(all.map(({ ended }) => ended));
    throw error;
  }
  return watchWorkers(all, signal, () => {
    const startedAt = performance.timeOrigin;
    for (const worker of all) {
      worker.start({ ...shared, job: folder, workers, meeting, startedAt, rank: worker.rank });
    }
  });
}
