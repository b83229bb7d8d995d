/** What operators that read and write by index have in common. */
import {
  add,
  cast,
  div,
  equal,
  expand,
  mul,
  reshape,
  scatterElements,
  slice,
  sub,
} from "../../functional/index.ts";
import type {
  AttributeSpec,
  BatchContext,
  BatchRule,
  GradientContext,
  IndexUse,
  InferContext,
  Picks,
  Value,
} from "../../graph/index.ts";
import { type DType, elementCount, normalizeDim, type Shape } from "../../tensor/index.ts";

export const REDUCTION: AttributeSpec = { kind: "string", default: "none" };

/** The shape of input `index`, which must hold indices. */
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

/** Declares that input 1 holds indices along `axis` of input 0. */
export function alongAxis(context: InferContext, wraps: boolean): IndexUse[] {
  const { shape } = context.input(0);
  return [{ input: 1, places: [shape[axisOf(context, shape)] as number], wraps }];
}

/** Declares that input 1 holds index tuples, each into the dims of input 0 from `first` on. */
export function tuplesInto(context: InferContext, first: number): IndexUse[] {
  const depth = context.input(1).shape.at(-1) as number;
  return [{ input: 1, places: context.input(0).shape.slice(first, first + depth), wraps: true }];
}

/** For batches: input 1 holds indices along `axis` of input 0. */
export const picksAlongAxis: NonNullable<BatchRule["picks"]> = ({ attributes, input }) => ({
  input: 1,
  dims: normalizeDim(attributes.number("axis"), input(0).shape.length) as number,
});

/** For batches: input 1 holds index tuples, each into the dims of input 0 from `first` on. */
export function picksTuples({ input }: BatchContext, first: number): Picks {
  const depth = input(1).shape.at(-1) as number;
  return { input: 1, dims: Array.from({ length: depth }, (_, index) => first + index) };
}

/** In a gradient rule: the dim that the attribute `axis` names in `shape`. */
export function dimOf(context: GradientContext, shape: Shape): number {
  return normalizeDim(context.attributes.number("axis"), shape.length) as number;
}

/**
 * The gradients of x and of the updates that it was multiplied by: each is the product of all the
 * other factors. A factor of zero is left out of the products, and its gradient is nonzero only if
 * it is the only zero at its position.
 */
export function productGradient(
  context: GradientContext,
  scatter: (x: Value, updates: Value, reduction: "mul" | "add") => Value,
  read: (x: Value) => Value,
): (Value | undefined)[] {
  const [x, updates] = [context.input(0), context.input(2)];
  const [zeroX, zeroU] = [cast(equal(x, 0), x.dtype), cast(equal(updates, 0), x.dtype)];
  const [factorX, factorU] = [add(x, zeroX), add(updates, zeroU)];
  const zeros = scatter(zeroX, zeroU, "add");
  const scaled = mul(context.gradient(0), scatter(factorX, factorU, "mul"));
  const share = (product: Value, factor: Value, own: Value, all: Value): Value =>
    mul(div(product, factor), cast(equal(own, all), x.dtype));
  return [
    context.needs(0) ? share(scaled, factorX, zeroX, zeros) : undefined,
    undefined,
    context.needs(2) ? share(read(scaled), factorU, zeroU, read(zeros)) : undefined,
  ];
}

/**
 * Zeros to scatter into, computed at run time from an available integer: engines compute what
 * depends on constants only once and keep it, and this may be as large as an embedding.
 */
export function zerosBeside(indices: Value, dtype: DType, shape: Shape): Value {
  const count = elementCount(indices.shape);
  const first = slice(reshape(indices, [count]), [{ axis: 0, start: 0, end: 1 }]);
  return expand(reshape(cast(sub(first, first), dtype), []), shape);
}

/**
 * Zeros of `shape` with each element of `updates` added at its own position, but at the index in
 * `indices` along `axis`. Half types are added in float32, because they have no kernel for it, and
 * too few digits for long sums.
 */
export function sumAt(indices: Value, updates: Value, axis: number, shape: Shape): Value {
  const { dtype } = updates;
  const wide = dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype;
  const zeros = zerosBeside(indices, wide, shape);
  return cast(scatterElements(zeros, indices, cast(updates, wide), axis, "add"), dtype);
}
