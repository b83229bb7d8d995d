/** A run takes the place for its checkpoints, so that no other run writes there. */
import { readlinkSync } from "node:fs";
import { hostname } from "node:os";
import type { Hold } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import type { EventSink } from "../telemetry/index.ts";
import type { RunFolder } from "./folder.ts";
import { bootId } from "./lock.ts";

export interface HoldOptions {
  readonly folder: RunFolder;
  /** What all processes of the run have alike: one takes the place over from another at once. */
  readonly group?: string | undefined;
  readonly asked: AbortSignal;
  readonly onEvent: EventSink;
}

/**
 * Called by the leader, with the lock of the run's folder.
 * @returns undefined where the place cannot be taken: saves fail for the same reason, and say so
 * @throws RUN_LOCKED naming the owner; the reason of a stop that is asked for
 */
export async function holdPlace(options: HoldOptions): Promise<Hold | undefined> {
  const { folder, group, asked, onEvent } = options;
  const since = new Date().toISOString();
  const by = { run: group, host: hostname(), pid: process.pid, space: processSpace(), since };
  try {
    const onWatch = (text: string) => onEvent({ type: "notice", text });
    return await folder.checkpoints.hold(by, { signal: asked, onWatch });
  } catch (error) {
    if (!(error instanceof LockstepError) || !/^(?:STORE|DISK_FULL)$/.test(error.code)) throw error;
    const [why] = error.message.split("\n");
    const { place } = folder.checkpoints;
    const text = `"${place}" is not protected from other runs. ${why}`;
    onEvent({ type: "notice", text });
    return undefined;
  }
}

/** Processes of several containers of a machine do not see each other. */
function processSpace(): string {
  try {
    return `${bootId()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return bootId();
  }
}
