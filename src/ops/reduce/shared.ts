/** What reductions answer alike: which dims go, and the shapes that are left. */
import { assert } from "../../errors.ts";
import type { AttributeSpec, GradientContext, InferContext } from "../../graph/index.ts";
import { normalizeDim, type Shape, type TensorType } from "../../tensor/index.ts";

export const REDUCE_ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  keepdims: { kind: "int", default: 1 },
  noop_with_empty_axes: { kind: "int", default: 0 },
};

/** The reduced dims of a shape, by ONNX's rules for missing and empty axes. */
function reducedDims(
  axes: readonly number[] | undefined,
  rank: number,
  noop: boolean,
): Set<number> {
  if (axes === undefined || axes.length === 0) {
    return new Set(noop ? [] : Array.from({ length: rank }, (_, dim) => dim));
  }
  return new Set(axes.map((axis) => normalizeDim(axis, rank) ?? -1));
}

export function reducedType(context: InferContext): TensorType {
  const { dtype, shape } = context.input(0);
  const axes = context.inputs[1] === undefined ? undefined : context.constantNumbers(1);
  const noop = context.attributes.number("noop_with_empty_axes") === 1;
  const dims = reducedDims(axes, shape.length, noop);
  if (dims.has(-1)) context.fail(`axes [${axes?.join(", ")}] are out of range`);
  const keep = context.attributes.number("keepdims") === 1;
  return {
    dtype,
    shape: keep
      ? shape.map((size, dim) => (dims.has(dim) ? 1 : size))
      : shape.filter((_, dim) => !dims.has(dim)),
  };
}

/** In a gradient rule: the reduced dims, sorted. */
export function dimsOf(context: GradientContext): number[] {
  const axes = context.inputs[1] === undefined ? undefined : context.constantNumbers(1);
  const noop = context.attributes.number("noop_with_empty_axes") === 1;
  const dims = reducedDims(axes, context.input(0).shape.length, noop);
  assert(!dims.has(-1), "axes were checked by inference");
  return [...dims].sort((a, b) => a - b);
}

/** In a gradient rule: the shape of the result as if `keepdims` were set. */
export function keptShape(context: GradientContext): Shape {
  const dims = new Set(dimsOf(context));
  return context.input(0).shape.map((size, dim) => (dims.has(dim) ? 1 : size));
}
