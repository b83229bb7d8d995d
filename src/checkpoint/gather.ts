/** Waits for the writers of a draft, by the names in it. */
import { setTimeout as delay } from "node:timers/promises";
import { type ErrorCode, LockstepError } from "../errors.ts";
import { endedWriter } from "./names.ts";

/** The milliseconds without any progress of the writers after which they are given up. */
const STALLED_MS = 600_000;

export interface Waiting {
  /** The path of the checkpoint that the draft will be. */
  readonly path: string;
  readonly writers: readonly number[];
  /** The milliseconds between two looks. */
  readonly pauseMs: number;
  /** The names in the draft, and a text that changes when any of the writers goes on. */
  look(): Promise<{ readonly names: readonly string[]; readonly progress: string }>;
  readonly signal: AbortSignal | undefined;
}

/**
 * Returns the SHA-256 of what each writer has written.
 * @throws the error of a writer, IO_FAILED when none goes on, the reason of `signal`
 */
export async function untilAllEnded({
  path,
  writers,
  pauseMs,
  look,
  signal,
}: Waiting): Promise<ReadonlyMap<number, string>> {
  let [seen, seenAt] = ["", performance.now()];
  for (;;) {
    const isLast = signal?.aborted === true;
    const { names, progress } = await look();
    const ended = names.flatMap((name) => endedWriter(name) ?? []);
    const failed = ended.find(({ hasFailed }) => hasFailed);
    if (failed !== undefined) throw failureOf(path, failed.rank, failed.result);
    if (ended.length === writers.length) {
      return new Map(ended.map(({ rank, result }) => [rank, result]));
    }
    if (isLast) throw signal.reason;
    const now = `${names.join()} ${progress}`;
    if (now !== seen) [seen, seenAt] = [now, performance.now()];
    else if (performance.now() - seenAt > STALLED_MS) {
      const text = `No worker has written to the checkpoint "${path}" for ${STALLED_MS / 1000} s.`;
      throw new LockstepError("IO_FAILED", text, {
        hint: "Does the disk or the file server still answer?",
        fields: { path },
      });
    }
    await delay(pauseMs);
  }
}

function failureOf(path: string, rank: number, code: string): LockstepError {
  const known: readonly ErrorCode[] = ["DISK_FULL", "IO_FAILED", "STORE"];
  const said = known.find((one) => one === code) ?? "IO_FAILED";
  const isFull = said === "DISK_FULL";
  const why = isFull ? "the disk is full" : `it failed (${code})`;
  return new LockstepError(
    said,
    `Worker ${rank} cannot write its shard of the checkpoint "${path}": ${why}.`,
    { ...(isFull ? { hint: "Free some space there." } : {}), fields: { path, rank } },
  );
}
