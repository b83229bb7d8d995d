/** The dim of a batch along which its samples are sequences. */
import { LockstepError } from "../errors.ts";
import type { StepGraph, StepValue } from "../plan/index.ts";
import type { DType } from "../tensor/index.ts";

export interface Sequence {
  /** The number of tokens of a sample. */
  readonly length: number;
  /** The fields of a batch that have a number, or several, for each token. */
  readonly fields: ReadonlySet<string>;
  /** The dim of these fields that counts tokens. */
  readonly dim: number;
}

/** Behind the dim of samples. */
const DIM = 1;

const TOKENS: ReadonlySet<DType> = new Set(["int32", "int64"]);

/**
 * A sequence is what whole numbers come in: tokens, classes, masks, in fields (batch, length) that
 * all have one length. Other fields that are as long along that dim belong to it.
 * @param what asks for it, as people call it
 * @throws INVALID_OPTION if there is no such dim
 */
export function sequenceOf(step: StepGraph, what: string): Sequence {
  const fields = [...step.values.values()].filter(({ role }) => role === "batch");
  const ofTokens = fields.filter(
    ({ type: { dtype, shape } }) => TOKENS.has(dtype) && shape.length === DIM + 1,
  );
  const lengths = new Set(ofTokens.map(({ type }) => type.shape[DIM] as number));
  const [length, ...others] = lengths;
  if (length === undefined || length < 2) {
    throw noSequence(
      `${what} cuts sequences of tokens, which the batches of this run do not have (${fields.map(text).join(", ")}).`,
    );
  }
  if (others.length > 0) {
    throw noSequence(
      `${what} cuts sequences, but those of this run differ in length: ${ofTokens.map(text).join(", ")}.`,
    );
  }
  const own = fields.filter(({ type: { shape } }) => shape[DIM] === length);
  return { length, fields: new Set(own.map(({ of }) => of)), dim: DIM };
}

function text({ of, type: { dtype, shape } }: StepValue): string {
  return `"${of}" ${dtype} (${["batch", ...shape.slice(1)].join(", ")})`;
}

export function noSequence(message: string): LockstepError {
  return new LockstepError("INVALID_OPTION", message, {
    hint: "Use data, shard, tensor or pipeline instead. A sequence is a field (batch, length) of int32 or int64 numbers.",
  });
}
