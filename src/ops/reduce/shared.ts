/** What reductions have in common: the reduced dims, and the resulting shapes. */
import { assert } from "../../errors.ts";
import { reshape } from "../../functional/index.ts";
import type {
  AttributeSpec,
  BatchRule,
  Division,
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import {
  type DType,
  elementCount,
  isFloat,
  normalizeDim,
  type Shape,
  type TensorType,
} from "../../tensor/index.ts";
import { along } from "../divisions.ts";

export const REDUCE_ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  keepdims: { kind: "int", default: 1 },
  noop_with_empty_axes: { kind: "int", default: 0 },
};

/** What distinguishes one reduction from another. */
export interface Reduction {
  readonly name: string;
  /** The gradient of the input. */
  readonly gradient: (context: GradientContext) => Value;
  /** The number of operations for each input element. */
  readonly flops: number;
  /**
   * Whether reducing over no dims leaves the input unchanged (true for a sum, not for a sum of
   * squares).
   */
  readonly idempotent: boolean;
  readonly batch?: BatchRule;
  /**
   * What the results of ranks that hold parts of the reduced dims are: the terms of a sum, or values
   * of which the result is the largest. Default: such a dim is not cut.
   */
  readonly ofParts?: {
    readonly hold: "partial" | "partial max";
    /** What a rank makes of its parts. Default: the operator itself. */
    readonly local?: Division["local"];
    /** Whether it is wrong for integers, because these are rounded. Default: false. */
    readonly floatsOnly?: boolean;
  };
}

/** A reduction over the dims in input 1 (all, if it is omitted). */
export function reduction(of: Reduction): OperatorDefinition {
  const { name, gradient, flops, idempotent, batch, ofParts } = of;
  return {
    name,
    inputs: [1, 2],
    outputs: [1, 1],
    attributes: REDUCE_ATTRIBUTES,
    infer: (context) => {
      const type = reducedType(context);
      const empty = context.inputs[1] === undefined || context.constantNumbers(1).length === 0;
      if (!idempotent && empty && context.attributes.number("noop_with_empty_axes") === 1) {
        context.fail("noop_with_empty_axes without axes is not supported, for engines disagree");
      }
      return [type];
    },
    gradient: (context) => [gradient(context), undefined],
    flops: (context) => flops * elementCount(context.input(0).shape),
    inPlace: false,
    within: "axes",
    divisions: (context) => {
      const { dtype, shape } = context.input(0);
      const reduced = reducedIn(context);
      const keeps = context.attributes.number("keepdims") === 1;
      const others = context.inputs.slice(1).map(() => undefined);
      return shape.flatMap((_, dim) => {
        if (reduced.has(dim)) {
          if (ofParts === undefined) return [];
          const { hold, local, floatsOnly = false } = ofParts;
          if (floatsOnly && !isFloat(dtype)) return [];
          return along(context, { inputs: [dim, ...others], outputs: [hold], local });
        }
        const before = [...reduced].filter((other) => other < dim).length;
        return along(context, {
          inputs: [dim, ...others],
          outputs: [keeps ? dim : dim - before],
        });
      });
    },
    ...(batch && { batch }),
  };
}

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
  const dims = reducedIn(context);
  if (dims.has(-1))
    context.fail(`axes [${context.constantNumbers(1).join(", ")}] are out of range`);
  const keep = context.attributes.number("keepdims") === 1;
  return {
    dtype,
    shape: keep
      ? shape.map((size, dim) => (dims.has(dim) ? 1 : size))
      : shape.filter((_, dim) => !dims.has(dim)),
  };
}

function reducedIn(context: InferContext | GradientContext): Set<number> {
  const axes = context.inputs[1] === undefined ? undefined : context.constantNumbers(1);
  const noop = context.attributes.number("noop_with_empty_axes") === 1;
  return reducedDims(axes, context.input(0).shape.length, noop);
}

/** In a gradient rule: the reduced dims, sorted. */
export function dimsOf(context: GradientContext): number[] {
  const dims = reducedIn(context);
  assert(!dims.has(-1), "axes were checked by inference");
  return [...dims].sort((a, b) => a - b);
}

/** In a gradient rule: the shape of the result as if `keepdims` were set. */
export function keptShape(context: GradientContext): Shape {
  const dims = new Set(dimsOf(context));
  return context.input(0).shape.map((size, dim) => (dims.has(dim) ? 1 : size));
}

/**
 * In a gradient rule: the result as if `keepdims` were set, so that it broadcasts over the input.
 */
export function keptOutput(context: GradientContext): Value {
  return reshape(context.output(0), keptShape(context));
}

/** In a gradient rule: the gradient of the result as if `keepdims` were set. */
export function keptGradient(context: GradientContext): Value {
  return reshape(context.gradient(0), keptShape(context));
}

/** ArgMax and ArgMin: the index of an extreme along one dim, as int64. */
export function positionOf(name: string): OperatorDefinition {
  return {
    name,
    inputs: [1, 1],
    outputs: [1, 1],
    attributes: {
      axis: { kind: "int", default: 0 },
      keepdims: { kind: "int", default: 1 },
      select_last_index: { kind: "int", default: 0 },
    },
    infer: (context) => {
      const { shape } = context.input(0);
      const given = context.attributes.number("axis");
      const axis = normalizeDim(given, shape.length);
      if (axis === undefined) return context.fail(`axis ${given} is out of range`);
      const keep = context.attributes.number("keepdims") === 1;
      const dtype: DType = "int64";
      return [
        {
          dtype,
          shape: keep ? shape.with(axis, 1) : shape.toSpliced(axis, 1),
        },
      ];
    },
    gradient: { zero: "a position is an integer" },
    flops: (context) => elementCount(context.input(0).shape),
    inPlace: false,
    divisions: (context) => {
      const { shape } = context.input(0);
      const axis = normalizeDim(context.attributes.number("axis"), shape.length) as number;
      const keeps = context.attributes.number("keepdims") === 1;
      return shape.flatMap((_, dim) => {
        if (dim === axis) return [];
        const to = keeps || dim < axis ? dim : dim - 1;
        return along(context, { inputs: [dim], outputs: [to] });
      });
    },
  };
}
