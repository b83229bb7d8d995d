/** What operators that read and write by number answer alike. */
import { LockstepError } from "../../errors.ts";
import { cast, expand, reshape, scatterElements, slice, sub } from "../../functional/index.ts";
import type {
  AttributeSpec,
  GradientContext,
  InferContext,
  InputRange,
  Value,
} from "../../graph/index.ts";
import { type DType, elementCount, normalizeDim, type Shape } from "../../tensor/index.ts";

export const REDUCTION: AttributeSpec = { kind: "string", default: "none" };

/** The shape of input `index`, which must hold numbers of places. */
export function checkIndices(context: InferContext, index: number): Shape {
  const { dtype, shape } = context.input(index);
  if (dtype !== "int32" && dtype !== "int64") context.failType("indices are int32 or int64");
  return shape;
}

/**
 * Input `input` holds numbers of `count` places. Data counts them from 0, as PyTorch's embedding, gather and losses do: a negative number
 * that reaches here as it is in a file is a mark for "none" far more often than a place counted from the end.
 */
export function places(input: number, count: number): InputRange {
  return { input, range: { low: 0, high: count - 1, whole: true } };
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
 * Zeros of `shape` with each element of `updates` added at its place, but at the number in `indices` along `axis`. Half types are added in float32:
 * they have no kernel that adds, and too few digits for long sums.
 */
export function sumAt(indices: Value, updates: Value, axis: number, shape: Shape): Value {
  const { dtype } = updates;
  const wide = dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype;
  const zeros = zerosBeside(indices, wide, shape);
  return cast(scatterElements(zeros, indices, cast(updates, wide), axis, "add"), dtype);
}
