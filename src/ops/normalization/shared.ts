/** What normalizations have in common. */
import { assert } from "../../errors.ts";
import { cast, expand, reshape, sumTo } from "../../functional/index.ts";
import type {
  AttributeReader,
  AttributeSpec,
  BatchContext,
  GradientContext,
  InferContext,
  Value,
} from "../../graph/index.ts";
import {
  broadcastShapes,
  type DType,
  elementCount,
  normalizeDim,
  type Shape,
  sameShape,
  type TensorType,
} from "../../tensor/index.ts";
import { floatType } from "../shared.ts";

export const AXIS: Readonly<Record<string, AttributeSpec>> = {
  axis: { kind: "int", default: -1 },
};

/** The attribute `axis`, counted from the front. */
export function axisOf(attributes: AttributeReader, shape: Shape): number {
  const axis = normalizeDim(attributes.number("axis"), shape.length);
  assert(axis !== undefined, "the axis was checked by inference");
  return axis;
}

/** The type of input 0: a float with a dim `axis`. */
export function checkedFloat(context: InferContext): TensorType {
  const type = floatType(context);
  const axis = context.attributes.number("axis");
  if (normalizeDim(axis, type.shape.length) === undefined) {
    context.fail(`axis ${axis} is out of range for ${type.shape.length} dims`);
  }
  return type;
}

/** Checks that input `index`, if given, has the type of `x` and broadcasts to `shape`. */
export function checkBroadcast(context: InferContext, index: number, shape: Shape): void {
  const type = context.inputs[index];
  if (type === undefined) return;
  if (type.dtype !== context.input(0).dtype) {
    context.failType("scale and bias must have the element type of the input");
  }
  if (!sameShape(broadcastShapes(type.shape, shape) ?? [], shape)) {
    context.fail(`input ${index} does not broadcast to [${shape.join(", ")}]`);
  }
}

/**
 * The type of input 0 (N, C, …), at least `dims` dims; inputs 1 to `last` are vectors over its
 * channels.
 */
export function checkedChannels(context: InferContext, dims: number, last: number): TensorType {
  const type = floatType(context);
  const channels = type.shape[1];
  if (type.shape.length < dims) context.fail("takes an input (N, C, sizes)");
  for (let index = 1; index <= last; index++) {
    const { dtype, shape } = context.input(index);
    if (dtype !== type.dtype) context.failType("inputs must have one element type");
    if (shape.length !== 1 || shape[0] !== channels) {
      context.fail(`input ${index} must have one element for each of ${channels} channels`);
    }
  }
  return type;
}

/** The shape of statistics over the dims from `axis` on: those have size 1. */
export function statisticsShape(shape: Shape, axis: number): number[] {
  return shape.map((size, dim) => (dim < axis ? size : 1));
}

/**
 * The element type in which statistics are kept (`stash_type` 1: float32, but not narrower than the
 * input's).
 */
export function stashType(dtype: DType): DType {
  return dtype === "float64" ? "float64" : "float32";
}

/** A statistics output of a normalization node, in the element type of its input. */
export function statistic(context: GradientContext, index: number): Value {
  return cast(context.output(index), context.input(0).dtype);
}

/** In a gradient rule: the input as `count` rows of `size` normalized elements. */
export function normalizedRows(context: GradientContext): {
  readonly count: number;
  readonly size: number;
  /** A tensor of the input's shape as a matrix (count, size). */
  readonly rows: (x: Value) => Value;
  /** A scale or bias as a vector (size). */
  readonly vector: (x: Value) => Value;
  /** Reshapes a gradient (1, size) to that of a scale of the given shape. */
  readonly toScale: (gradient: Value, shape: Shape) => Value;
} {
  const { shape } = context.input(0);
  const normalized = shape.slice(axisOf(context.attributes, shape));
  const size = elementCount(normalized);
  const count = elementCount(shape) / size;
  return {
    count,
    size,
    rows: (x) => reshape(x, [count, size]),
    vector: (x) => reshape(expand(x, normalized), [size]),
    toScale: (gradient, of) => sumTo(reshape(gradient, normalized), of),
  };
}

/** The dims from `axis` on, for layers that normalize over them. */
export function dimsFromAxis({ attributes, input }: BatchContext): number[] {
  const { shape } = input(0);
  return dimsFrom(axisOf(attributes, shape), shape);
}

export function dimsFrom(axis: number, shape: Shape): number[] {
  return shape.flatMap((_, dim) => (dim < axis ? [] : [dim]));
}
