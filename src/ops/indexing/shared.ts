/** What operators that read and write by number answer alike. */
import { LockstepError } from "../../errors.ts";
import {
  add,
  cast,
  expand,
  fromStart,
  mul,
  range,
  reshape,
  slice,
  sub,
} from "../../functional/index.ts";
import type { AttributeSpec, GradientContext, InferContext, Value } from "../../graph/index.ts";
import { type DType, elementCount, normalizeDim, type Shape } from "../../tensor/index.ts";

export const REDUCTION: AttributeSpec = { kind: "string", default: "none" };

/** The shape of input `index`, which must hold numbers of places. */
export function checkIndices(context: InferContext, index: number): Shape {
  const { dtype, shape } = context.input(index);
  if (dtype !== "int32" && dtype !== "int64") context.failType("indices are int32 or int64");
  return shape;
}

export function checkReduction(context: InferContext): void {
  const reduction = context.attributes.string("reduction");
  if (!["none", "add", "mul", "max", "min"].includes(reduction)) {
    context.fail(`reduction "${reduction}" is not known`);
  }
}

/** The dim that the attribute `axis` names in `shape`. */
export function axisOf(context: InferContext, shape: Shape): number {
  const axis = context.attributes.number("axis");
  return normalizeDim(axis, shape.length) ?? context.fail(`axis ${axis} is out of range`);
}

/** In a gradient rule: the dim that the attribute `axis` names in `shape`. */
export function dimOf(context: GradientContext, shape: Shape): number {
  return normalizeDim(context.attributes.number("axis"), shape.length) as number;
}

/** A reduction whose gradient for that input we do not know. */
export function noGradientFor(context: GradientContext, what: string): never {
  const reduction = context.attributes.string("reduction");
  throw new LockstepError(
    "NO_GRADIENT",
    `The operator ${context.op} with reduction "${reduction}" has no gradient for ${what}.`,
    { hint: "Use reduction add, max or min, or leave this input untrained." },
  );
}

/**
 * Zeros to scatter into, made at run time from an integer that is at hand: engines compute what depends on
 * constants alone once and keep it, and this may be as large as an embedding.
 */
export function zerosBeside(indices: Value, dtype: DType, shape: Shape): Value {
  const count = elementCount(indices.shape);
  const first = slice(reshape(indices, [count]), [{ axis: 0, start: 0, end: 1 }]);
  return expand(reshape(cast(sub(first, first), dtype), []), shape);
}

/**
 * Tuples of numbers (as of GatherND) → for each one number, into the flattened dims `sizes`.
 * The first `batch` of these dims are shared with the tuples, which then give the numbers of the others.
 */
export function flatIndices(tuples: Value, sizes: Shape, batch: number): Value {
  const count = elementCount(tuples.shape.slice(0, -1));
  const depth = tuples.shape.at(-1) as number;
  const list = reshape(tuples, [count, depth]);
  const shared = elementCount(sizes.slice(0, batch));
  let flat: Value | undefined;
  if (shared > 1) {
    const numbers = range(tuples.builder, tuples.dtype, 0, shared);
    flat = reshape(numbers, [shared, 1]);
  }
  for (let place = 0; place < depth; place++) {
    const size = sizes[batch + place] as number;
    const column = slice(list, [{ axis: 1, start: place, end: place + 1 }]);
    const number = reshape(fromStart(column, size), [shared, count / shared]);
    flat = flat === undefined ? number : add(mul(flat, size), number);
  }
  const result = flat ?? reshape(list, [count]);
  return reshape(result, [count]);
}
