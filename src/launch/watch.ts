/**
 * How a run of several workers ends, wherever they are: when all have ended successfully, or with
 * the cause of the first failure, after the leader has saved its state.
 */
import { type ErrorMessage, isConsequence } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import { atMost, SAVE_MS } from "./at-most.ts";
import { errorOf } from "./worker-error.ts";

/** How long to wait for the cause of a failure after its consequences were seen. */
const CAUSE_MS = 500;

/** A worker as its launcher sees it. */
export interface Watched {
  readonly rank: number;
  /** Resolves with the first failure; stays pending if there is none. */
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<void>;
  readonly failure: ErrorMessage | undefined;
  /** How the worker ended, if it ended without saying why. */
  readonly crash: string | undefined;
  readonly outcome: TrainResult["outcome"] | undefined;
  /**
   * Asks the worker to stop. `alone`: another worker is lost, and a worker that has not yet met all
   * others ends at once.
   */
  stop(alone?: boolean): void;
  kill(): void;
}

/**
 * Resolves when all workers have ended successfully; no worker is left when it settles. Throws the
 * first failure.
 */
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
    throw causeOf(all);
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
 * Waits for the cause of a failure, and for the leader to save its last good weights. The other
 * workers may not have noticed the failure, so they are asked to stop.
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

/**
 * Chooses the error to report: a crash first, then an error with a cause of its own, then errors
 * that only follow from another.
 */
function causeOf(all: readonly Watched[]): Error {
  const failed = all.filter(({ failure }) => failure !== undefined);
  const first =
    failed.find(({ crash }) => crash !== undefined) ??
    failed.find(({ failure }) => failure !== undefined && !isConsequence(failure)) ??
    failed[0];
  return errorOf(first ?? { rank: 0, failure: undefined });
}
