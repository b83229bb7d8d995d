/**
 * How a run of several workers ends, wherever they are: when all have ended well, or with the cause of the first
 * failure, after the leader has saved what it has.
 */
import { LockstepError } from "../errors.ts";
import type { TrainResult } from "../train/index.ts";
import { type ErrorMessage, isConsequence } from "./messages.ts";

/** How long the leader may take to save what it has when another worker has failed. */
const SAVE_MS = 30_000;
/** How long the cause of a failure may take to be seen after its consequences. */
const CAUSE_MS = 500;

/** A worker as its launcher sees it. */
export interface Watched {
  readonly rank: number;
  /** Resolves with the first failure; never without one. */
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<void>;
  readonly failure: ErrorMessage | undefined;
  /** How it ended without a word. */
  readonly crash: string | undefined;
  readonly outcome: TrainResult["outcome"] | undefined;
  /** `alone`: another worker is lost; one that has not met all others yet ends at once. */
  stop(alone?: boolean): void;
  kill(): void;
}

/** Resolves when all have ended well; none is left when it settles. Throws what the first failure was. */
export async function watchWorkers(
  all: readonly Watched[],
  signal: AbortSignal,
  start: () => void,
): Promise<TrainResult["outcome"]> {
  const stop = () => {
    for (const worker of all) worker.stop();
  };
  signal.addEventListener("abort", stop, { once: true });
  try {
    start();
    if (signal.aborted) stop();
    await firstFailureOrEnd(all);
    const failed = all.filter(({ failure }) => failure !== undefined);
    if (failed.length === 0) return all[0]?.outcome ?? "stopped";
    await settle(all);
    throw errorOf(all);
  } finally {
    signal.removeEventListener("abort", stop);
    for (const worker of all) worker.kill();
    await Promise.all(all.map(({ ended }) => ended));
  }
}

async function firstFailureOrEnd(all: readonly Watched[]): Promise<void> {
  const failures = all.map(({ ended, failed }) =>
    Promise.race([failed, ended.then(() => "ended")]),
  );
  const ends = Promise.all(all.map(({ ended }) => ended));
  await Promise.race([
    ends,
    ...failures.map((first) => first.then((what) => (what === "ended" ? ends : undefined))),
  ]);
}

/**
 * Waits for the cause of a failure, and for the leader to save its last good weights. The others may not have noticed: they
 * are asked to stop.
 */
async function settle(all: readonly Watched[]): Promise<void> {
  const cause = Promise.race(
    all.map(async (worker) => {
      const error = await worker.failed;
      if (worker.crash === undefined && isConsequence(error)) await never();
    }),
  );
  await atMost(CAUSE_MS, cause);
  for (const worker of all) worker.stop(true);
  await atMost(SAVE_MS, all[0]?.ended ?? Promise.resolve());
}

function never(): Promise<void> {
  return new Promise(() => undefined);
}

async function atMost(milliseconds: number, what: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await Promise.race([what, late]);
  clearTimeout(timer);
}

/** A crash counts first, then an error with a cause of its own, then the consequences. */
function errorOf(all: readonly Watched[]): Error {
  const failed = all.filter(({ failure }) => failure !== undefined);
  const first =
    failed.find(({ crash }) => crash !== undefined) ??
    failed.find(({ failure }) => failure !== undefined && !isConsequence(failure)) ??
    failed[0];
  const failure = first?.failure;
  if (first === undefined || failure === undefined) return new Error("no worker failed");
  const fields = { ...failure.fields, worker: first.rank };
  if (failure.code !== undefined) return new LockstepError(failure.code, failure.text, { fields });
  const error = new Error(failure.text.split("\n")[0]);
  error.stack = failure.text;
  return error;
}
