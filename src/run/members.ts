/**
 * The workers of a run, which come and go: a run goes from one generation of them to the next. Who
 * belongs to a generation is decided elsewhere (`membership/`); here a worker leaves its group and
 * enters another, between two steps or after its group has failed.
 */
import { LockstepError } from "../errors.ts";
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
  /** Whether the worker is asked to leave its group after the present step. */
  isWanted(): boolean;
}

/** The codes of errors that end a group and not the run: a rank is lost, or does not answer. */
const LOSSES = ["PEER_LOST", "DEADLINE", "ABORTED", "PROTOCOL"];

/** Whether an error only says that the group of these ranks has failed. */
export function isLoss(error: unknown, ranks: Ranks | undefined): boolean {
  if (ranks === undefined || !(error instanceof LockstepError)) return false;
  return ranks.group.transport.signal.aborted && LOSSES.includes(error.code);
}
