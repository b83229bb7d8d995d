/** The error that a worker has ended with, as the launcher throws it. */
import { LockstepError } from "../errors.ts";
import type { ErrorMessage } from "../protocol/index.ts";

export interface Failed {
  readonly rank: number;
  readonly failure: ErrorMessage | undefined;
}

export function errorOf({ rank, failure }: Failed): Error {
  if (failure === undefined) return new Error("no worker failed");
  const fields = { ...failure.fields, worker: rank };
  if (failure.code !== undefined) return new LockstepError(failure.code, failure.text, { fields });
  const error = new Error(failure.text.split("\n")[0]);
  error.stack = failure.text;
  return error;
}
