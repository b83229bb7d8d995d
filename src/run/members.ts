/**
 * The workers of a run, which come and go: a run goes from one generation of them to the next. Who
 * belongs to a generation is decided elsewhere (`membership/`); here a worker leaves its group and
 * enters another, between two steps or after its group has failed.
 */
import { LockstepError } from "../errors.ts";
import type { History } from "../telemetry/index.ts";
import type { Ranks } from "../train/index.ts";

/** How a worker takes part in generations. */
export interface Members {
  /**
   * Says that this worker is ready after `step` committed steps, and resolves with the next
   * generation that it is in. Its members call this together.
   * @param lost why the worker has left its group; undefined if it was asked to, or is new
   * @throws the reason to end the run
   */
  next(step: number, lost?: unknown): Promise<Ranks>;
  /** What has happened to the workers of the run so far. */
  history(): History;
  /** Whether the worker is asked to leave its group after the present step. */
  isWanted(): boolean;
  /** Says that this worker is far slower than the others, and that the run is to go on without it. */
  exclude(why: string): void;
  /** Whether the worker takes part in no later generation. */
  isLeaving(): boolean;
  /** Resolves when the worker is told so. */
  readonly leaving: Promise<void>;
  /**
   * Whether the run had begun before the present generation. If none of its members has a state,
   * it continues from the last checkpoint.
   */
  hasBegun(): boolean;
}

/** The codes of errors that end a group and not the run: a rank is lost, or does not answer. */
const LOSSES = ["PEER_LOST", "DEADLINE", "ABORTED", "PROTOCOL"];

/** Whether an error can come from a group whose ranks do not reach each other. */
export function isOfGroup(error: unknown): error is LockstepError {
  return error instanceof LockstepError && LOSSES.includes(error.code);
}

/**
 * Whether an error of a change of generation says that these workers are too few for the memory that
 * they have. All of them keep what they hold of the state.
 */
export function isTooFew(error: unknown): error is LockstepError {
  return error instanceof LockstepError && error.code === "OUT_OF_MEMORY";
}

/** Whether an error only says that the group of these ranks has failed. */
export function isLoss(error: unknown, ranks: Ranks | undefined): boolean {
  return ranks?.group.transport.signal.aborted === true && isOfGroup(error);
}
