/** Starts the workers of a run as processes of this machine, and watches them. One that fails takes no other down. */
import { randomBytes } from "node:crypto";
import type { EventSink } from "../telemetry/index.ts";
import type { TrainResult } from "../train/index.ts";
import type { Job } from "./messages.ts";
import { WorkerProcess } from "./process.ts";
import { watchWorkers } from "./watch.ts";

export interface LaunchOptions extends Omit<Job, "rank" | "meeting" | "startedAt"> {
  readonly onEvent: EventSink;
  /** Asks for a clean stop. */
  readonly signal: AbortSignal;
}

/** Resolves when all workers have ended well. @throws PEER_LOST for one that crashed, or what a worker threw */
export async function launchLocal(options: LaunchOptions): Promise<TrainResult["outcome"]> {
  const { onEvent, signal, workers, ...shared } = options;
  const group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  const meeting = { kind: "memory", group } as const;
  const all = Array.from(
    { length: workers },
    (_, rank) =>
      new WorkerProcess(rank, (message) => {
        if (message.kind === "event" && rank === 0) onEvent(message.event);
      }),
  );
  return watchWorkers(all, signal, () => {
    const job = { ...shared, workers, meeting, startedAt: performance.timeOrigin };
    for (const worker of all) worker.start({ ...job, rank: worker.rank });
  });
}
