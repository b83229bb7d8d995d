/** Tensors in the ranges that one rank or another holds. */
import type { Held, StepProgram, TensorRef } from "../program/index.ts";
import { byteLength } from "../tensor/index.ts";

/** The most bytes of another rank's part that are read at once. */
export const PIECE_BYTES = 2 ** 24;

/** Bytes [from, to) of a buffer: this rank's own, or those that another rank holds. */
export interface HeldRange {
  readonly from: number;
  readonly to: number;
  readonly held: Held | undefined;
}

/** Cuts a tensor where another rank holds the next bytes. */
export function* rangesOf(
  plan: Pick<StepProgram, "held">,
  { buffer, byteOffset, type }: TensorRef,
): Generator<HeldRange> {
  const end = byteOffset + byteLength(type);
  const others = plan.held
    .filter((part) => part.buffer === buffer)
    .toSorted((a, b) => a.byteOffset - b.byteOffset);
  let at = byteOffset;
  for (const held of others) {
    const from = Math.max(at, held.byteOffset);
    const to = Math.min(end, held.byteOffset + held.byteLength);
    if (from >= to) continue;
    if (at < from) yield { from: at, to: from, held: undefined };
    yield { from, to, held };
    at = to;
  }
  if (at < end) yield { from: at, to: end, held: undefined };
}
