/** What a run says of checkpoints that are late, or that were not written. */
import { LockstepError } from "../errors.ts";
import type { Session } from "./session.ts";

/** @throws an error that is not of the place and not of the group: a bug */
export function tellFailure({ options }: Session, step: number, error: unknown): void {
  if (!(error instanceof LockstepError)) throw error;
  options.onEvent({ type: "notice", text: notWritten(step, error) });
}

export function notWritten(step: number, error: LockstepError): string {
  return `step ${step}: no checkpoint was written, and those before are kept. ${inOneLine(error)}`;
}

export function inOneLine({ message }: LockstepError): string {
  return message.replaceAll(/\s*\n\s*/g, " ");
}

export function tellNoRoom(session: Session, bytes: number): void {
  if (session.saver.hasToldNoRoom) return;
  session.saver.hasToldNoRoom = true;
  const megabytes = Math.ceil(bytes / 1e6);
  const text = `Checkpoints are written between two steps, because free memory has no room for a copy of ${megabytes} MB.`;
  session.options.onEvent({ type: "notice", text });
}

/** The milliseconds of waiting for an earlier checkpoint that are worth a notice. */
const LONG_MS = 1000;

export function tellWait(session: Session, waitedMs: number): void {
  if (waitedMs <= LONG_MS || session.saver.hasToldWait) return;
  session.saver.hasToldWait = true;
  const { options, trainer } = session;
  const text = `Step ${trainer.steps}: training waited ${(waitedMs / 1000).toFixed(1)} s until the checkpoint before was written. A larger checkpointEvery would avoid this.`;
  options.onEvent({ type: "notice", text });
}
