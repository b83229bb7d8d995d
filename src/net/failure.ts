/**
 * How a group fails: once, with one error that names the rank at fault, for every current and later
 * wait.
 */
import { setMaxListeners } from "node:events";
import { type ErrorCode, LockstepError } from "../errors.ts";

/** What one rank tells the others when the group fails. */
export interface FailureReport {
  readonly code: ErrorCode;
  /** The rank at fault, or -1. */
  readonly peer: number;
  /** The rank that detected the failure. */
  readonly by: number;
  readonly text: string;
}

const REPORTED: readonly ErrorCode[] = ["PEER_LOST", "DEADLINE", "ABORTED", "PROTOCOL"];

export function peerLost(peer: number, how: string): LockstepError {
  return new LockstepError("PEER_LOST", `Rank ${peer} is lost: ${how}.`, { fields: { peer } });
}

export function deadlinePassed(peer: number, doing: string, deadlineMs: number): LockstepError {
  return new LockstepError(
    "DEADLINE",
    `Rank ${peer} did not answer within ${deadlineMs} ms (${doing}).`,
    { fields: { peer, deadlineMs } },
  );
}

export function protocolError(peer: number, what: string): LockstepError {
  return new LockstepError("PROTOCOL", `Rank ${peer}: ${what}.`, { fields: { peer } });
}

/** Returns the report that the peers get about `error`, which rank `by` detected. */
export function reportOf(error: unknown, by: number): FailureReport {
  if (error instanceof LockstepError && REPORTED.includes(error.code)) {
    const { peer, by: found } = error.fields;
    return {
      code: error.code,
      peer: typeof peer === "number" ? peer : by,
      by: typeof found === "number" ? found : by,
      text: error.message.split("\n")[0] ?? "",
    };
  }
  const text = error instanceof Error ? error.message : String(error);
  return { code: "ABORTED", peer: by, by, text: `Rank ${by} aborted: ${text}` };
}

/** Checks a report that came from rank `from`. */
export function readReport(value: unknown, from: number): FailureReport {
  const given = typeof value === "object" && value !== null ? value : {};
  const { code, peer, by, text } = given as Record<string, unknown>;
  return {
    code: REPORTED.find((known) => known === code) ?? "ABORTED",
    peer: typeof peer === "number" ? peer : from,
    by: typeof by === "number" ? by : from,
    text: typeof text === "string" ? text.slice(0, 1000) : `Rank ${from} aborted.`,
  };
}

/** Turns a report from a peer into an error. */
export function errorOf({ code, peer, by, text }: FailureReport): LockstepError {
  return new LockstepError(code, text, { fields: { peer, by } });
}

export function checkRank(rank: number, size: number): void {
  if (Number.isInteger(rank) && rank >= 0 && rank < size) return;
  throw new LockstepError("INVALID_OPTION", `There is no rank ${rank} in a group of ${size}.`);
}

/** Whether the group is alive. It calls those who want to know when the group fails. */
export class Fate {
  readonly #controller = new AbortController();
  readonly #listeners = new Set<(error: LockstepError) => void>();
  #error: LockstepError | undefined;

  constructor() {
    setMaxListeners(0, this.#controller.signal); // each dial adds a listener, and each collective may
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get error(): LockstepError | undefined {
    return this.#error;
  }

  /** Records a failure; only the first counts. Returns whether this was the first. */
  fail(error: LockstepError): boolean {
    if (this.#error !== undefined) return false;
    this.#error = error;
    for (const listener of this.#listeners) listener(error);
    this.#listeners.clear();
    this.#controller.abort(error);
    return true;
  }

  check(): void {
    if (this.#error !== undefined) throw this.#error;
  }

  /** Calls `listener` once if the group fails. The result removes the listener. */
  onFail(listener: (error: LockstepError) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
