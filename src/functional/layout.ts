/** Shapes and positions: nothing here computes. */
import { assert } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { anything, checkOptions, type OptionKinds } from "../options.ts";
import {
  type DType,
  elementCount,
  isFloat,
  normalizeDim,
  type Shape,
  sameShape,
  scalar,
} from "../tensor/index.ts";
import { builderOf } from "./operand.ts";
import { reduceSum } from "./reduce.ts";

/** One size may be -1: it is inferred from the others. */
export function reshape(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  return x.builder.one("Reshape", [x, x.builder.ints(shape)]);
}

/**
 * `perm[i]` is the dim of `x` that becomes dim i. If `x` is itself a transposition that this one
 * undoes, the result is its input.
 */
export function transpose(x: Value, perm: readonly number[]): Value {
  if (perm.every((dim, i) => dim === i)) return x;
  const maker = x.builder.makerOf(x);
  const before = maker?.op === "Transpose" ? maker.attributes["perm"]?.value : undefined;
  if (maker !== undefined && Array.isArray(before) && perm.every((dim, i) => before[dim] === i)) {
    return x.builder.value(maker.inputs[0] as string);
  }
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

/** Splits `x` into pieces of the given sizes along `axis`. */
export function split(x: Value, sizes: readonly number[], axis: number): Value[] {
  if (sizes.length === 1) return [x];
  return x.builder.emit("Split", [x, x.builder.ints(sizes)], { axis }, { outputs: sizes.length });
}

export interface SliceRange {
  readonly axis: number;
  readonly start: number;
  /** The end of the range, exclusive; it may count from the end. */
  readonly end: number;
  readonly step?: number;
}

const SLICE_OPTIONS: OptionKinds<SliceRange> = {
  axis: anything,
  start: anything,
  end: anything,
  step: anything.optional(),
};

export function slice(x: Value, ranges: readonly SliceRange[]): Value {
  for (const range of ranges) checkOptions("slice", range, SLICE_OPTIONS);
  const b = x.builder;
  return b.one("Slice", [
    x,
    b.ints(ranges.map((range) => range.start)),
    b.ints(ranges.map((range) => range.end)),
    b.ints(ranges.map((range) => range.axis)),
    b.ints(ranges.map((range) => range.step ?? 1)),
  ]);
}

/** How `pad` fills: with zeros, the mirrored inside, the outermost element, or the opposite end. */
export type PadMode = "constant" | "reflect" | "edge" | "wrap";

/**
 * Adds `before[dim]` and `after[dim]` elements around each dim. Negative numbers, allowed only for
 * zeros, remove elements.
 */
export function pad(
  x: Value,
  before: readonly number[],
  after: readonly number[],
  mode: PadMode = "constant",
): Value {
  if ([...before, ...after].every((size) => size === 0)) return x;
  const named = mode === "constant" ? {} : { mode };
  return x.builder.one("Pad", [x, x.builder.ints([...before, ...after])], named);
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

/** Adds dims of size 1; `axes` are dims of the result. */
export function unsqueeze(x: Value, axes: readonly number[]): Value {
  const rank = x.shape.length + axes.length;
  const added = new Set(axes.map((axis) => normalizeDim(axis, rank)));
  const sizes = [...x.shape];
  const shape = Array.from({ length: rank }, (_, dim) =>
    added.has(dim) ? 1 : (sizes.shift() as number),
  );
  return reshape(x, shape);
}

/** The elements of the dims `axes` in reverse order. */
export function flip(x: Value, axes: readonly number[]): Value {
  const start = axes.map((axis) => x.shape[normalizeDim(axis, x.shape.length) as number] as number);
  const ranges = axes.map((axis, i) => ({
    axis,
    start: (start[i] as number) - 1,
    end: -(start[i] as number) - 1,
    step: -1,
  }));
  return slice(x, ranges);
}

/** `x` repeated: `repeats[dim]` times along each dim. */
export function tile(x: Value, repeats: readonly number[]): Value {
  if (repeats.every((count) => count === 1)) return x;
  return x.builder.one("Tile", [x, x.builder.ints(repeats)]);
}

/** The lower triangle of the last two dims up to diagonal `k`; zeros above. */
export function tril(x: Value, k = 0): Value {
  return x.builder.one("Trilu", [x, x.builder.scalar("int64", k)], { upper: 0 });
}

/** The upper triangle of the last two dims from diagonal `k` on; zeros below. */
export function triu(x: Value, k = 0): Value {
  return x.builder.one("Trilu", [x, x.builder.scalar("int64", k)], { upper: 1 });
}

/** Numbers from `start` up to `limit`, exclusive. It is a node, not a stored constant. */
export function range(
  builder: GraphBuilder,
  dtype: DType,
  start: number,
  limit: number,
  step = 1,
): Value {
  const numbers = [start, limit, step].map((number) => builder.scalar(dtype, number));
  return builder.one("Range", numbers);
}

/** A tensor filled with one value: a scalar, expanded. */
export function full(builder: GraphBuilder, dtype: DType, shape: Shape, value: number): Value {
  return expand(builder.constant(scalar(dtype, value)), shape);
}

export function zerosLike(x: Value): Value {
  return full(x.builder, x.dtype, x.shape, 0);
}

/** Sums `x` to `shape`, from which it was broadcast: the gradient of broadcasting. */
export function sumTo(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  assert(lead >= 0, "sumTo: the target has no more dims");
  const axes = x.shape
    .map((_, dim) => dim)
    .filter((dim) => dim < lead || (shape[dim - lead] === 1 && x.shape[dim] !== 1));
  const rows = elementCount(axes.map((dim) => x.shape[dim] as number));
  if (isFloat(x.dtype) && rows >= 64 && axes.every((dim, i) => dim === i)) {
    return reshape(sumRows(reshape(x, [rows, elementCount(shape)])), shape);
  }
  const summed = reduceSum(x, { axes, keepdims: false });
  assert(elementCount(summed.shape) === elementCount(shape), "sumTo: a shape that broadcasts");
  return reshape(summed, shape);
}

/**
 * The sum of a matrix's rows as (1, columns). It is computed as a product with ones, which takes
 * half the time of ReduceSum over the first dim.
 */
function sumRows(x: Value): Value {
  const ones = full(x.builder, x.dtype, [1, x.shape[0] as number], 1);
  return x.builder.one("Gemm", [ones, x]);
}
