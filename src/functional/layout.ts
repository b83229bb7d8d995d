/** Shapes and places: nothing here computes. */
import { assert } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import {
  type DType,
  elementCount,
  normalizeDim,
  type Shape,
  sameShape,
  scalar,
} from "../tensor/index.ts";
import { builderOf } from "./operand.ts";
import { reduceSum } from "./reduce.ts";

/** One size may be -1: what is left. */
export function reshape(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  return x.builder.one("Reshape", [x, x.builder.ints(shape)]);
}

/** `perm[i]` is the dim of `x` that becomes dim i. */
export function transpose(x: Value, perm: readonly number[]): Value {
  if (perm.every((dim, i) => dim === i)) return x;
  return x.builder.one("Transpose", [x], { perm });
}

/** Swaps the last two dims. */
export function swapLast(x: Value): Value {
  const rank = x.shape.length;
  const perm = x.shape.map((_, dim) => dim);
  return transpose(x, [...perm.slice(0, rank - 2), rank - 1, rank - 2]);
}

export function concat(values: readonly Value[], axis: number): Value {
  if (values.length === 1) return values[0] as Value;
  return builderOf(values).one("Concat", values, { axis });
}

/** Pieces of the given sizes along `axis`. */
export function split(x: Value, sizes: readonly number[], axis: number): Value[] {
  if (sizes.length === 1) return [x];
  return x.builder.emit("Split", [x, x.builder.ints(sizes)], { axis }, { outputs: sizes.length });
}

export interface SliceRange {
  readonly axis: number;
  readonly start: number;
  /** Exclusive; may count from the end. */
  readonly end: number;
  readonly step?: number;
}

export function slice(x: Value, ranges: readonly SliceRange[]): Value {
  const b = x.builder;
  return b.one("Slice", [
    x,
    b.ints(ranges.map((range) => range.start)),
    b.ints(ranges.map((range) => range.end)),
    b.ints(ranges.map((range) => range.axis)),
    b.ints(ranges.map((range) => range.step ?? 1)),
  ]);
}

/** Zeros around: `before[dim]` and `after[dim]` elements (negative: cropped). */
export function pad(x: Value, before: readonly number[], after: readonly number[]): Value {
  if ([...before, ...after].every((size) => size === 0)) return x;
  return x.builder.one("Pad", [x, x.builder.ints([...before, ...after])]);
}

export function expand(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  return x.builder.one("Expand", [x, x.builder.ints(shape)]);
}

export function squeeze(x: Value, axes: readonly number[]): Value {
  const dims = new Set(axes.map((axis) => normalizeDim(axis, x.shape.length)));
  return reshape(
    x,
    x.shape.filter((_, dim) => !dims.has(dim)),
  );
}

/** Adds dims of size 1; `axes` count in the result. */
export function unsqueeze(x: Value, axes: readonly number[]): Value {
  const rank = x.shape.length + axes.length;
  const added = new Set(axes.map((axis) => normalizeDim(axis, rank)));
  const sizes = [...x.shape];
  const shape = Array.from({ length: rank }, (_, dim) =>
    added.has(dim) ? 1 : (sizes.shift() as number),
  );
  return reshape(x, shape);
}

/** Rows of `table` along `axis` at `indices` (int32 or int64). */
export function gather(table: Value, indices: Value, axis = 0): Value {
  return table.builder.one("Gather", [table, indices], { axis });
}

/** A tensor of one value: a scalar, expanded. */
export function full(builder: GraphBuilder, dtype: DType, shape: Shape, value: number): Value {
  return expand(builder.constant(scalar(dtype, value)), shape);
}

export function zerosLike(x: Value): Value {
  return full(x.builder, x.dtype, x.shape, 0);
}

/**
 * Sums `x` down to `shape`, from which it was broadcast: the gradient of broadcasting.
 */
export function sumTo(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  assert(lead >= 0, "sumTo: the target has no more dims");
  const axes = x.shape
    .map((_, dim) => dim)
    .filter((dim) => dim < lead || (shape[dim - lead] === 1 && x.shape[dim] !== 1));
  const summed = reduceSum(x, { axes, keepdims: false });
  assert(elementCount(summed.shape) === elementCount(shape), "sumTo: a shape that broadcasts");
  return reshape(summed, shape);
}
