import {
  gemm,
  matmul as matmulOf,
  oneBatch,
  reshape,
  sumTo,
  swapLast,
} from "../../functional/index.ts";
import type { CostContext, GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { broadcastShapes, elementCount, sameShape } from "../../tensor/index.ts";
import { productDivisions } from "./divisions.ts";

/** Matrix product over the last two dims; leading dims broadcast; 1-d operands as in NumPy. */
export const matmul: OperatorDefinition = {
  name: "MatMul",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const [a, b] = [context.input(0), context.input(1)];
    if (a.dtype !== b.dtype) context.failType("both inputs must have one element type");
    if (a.shape.length === 0 || b.shape.length === 0) context.fail("takes no scalars");
    const left = a.shape.length === 1 ? [1, ...a.shape] : a.shape;
    const right = b.shape.length === 1 ? [...b.shape, 1] : b.shape;
    const batch = broadcastShapes(left.slice(0, -2), right.slice(0, -2));
    if (batch === undefined) return context.fail("leading dims do not broadcast");
    if (left.at(-1) !== right.at(-2)) {
      context.fail(`the inner sizes ${left.at(-1)} and ${right.at(-2)} differ`);
    }
    const rows = a.shape.length === 1 ? [] : [left.at(-2) as number];
    const columns = b.shape.length === 1 ? [] : [right.at(-1) as number];
    return [{ dtype: a.dtype, shape: [...batch, ...rows, ...columns] }];
  },
  gradient: (context) => {
    const [a, b] = [context.input(0), context.input(1)];
    if (a.shape.length > 1 && b.shape.length === 2) return weightGradient(context);
    return batchedGradient(context);
  },
  flops: (context: CostContext) =>
    2 * elementCount(context.outputs[0]?.shape ?? []) * (context.input(0).shape.at(-1) as number),
  inPlace: false,
  within: "matrices",
  batch: { reduces: "sum", linear: "each" },
  divisions: (context) => {
    const [a, b] = [context.input(0).shape, context.input(1).shape];
    const rank = context.outputs[0]?.shape.length ?? 0;
    return productDivisions(context, {
      rows: a.length > 1 ? [a.length - 2, rank - (b.length > 1 ? 2 : 1)] : undefined,
      columns: b.length > 1 ? [b.length - 1, rank - 1] : undefined,
      inner: [a.length - 1, Math.max(0, b.length - 2)],
    });
  },
};

/**
 * The common case, rows times a matrix of weights: a single product over all leading dims, without
 * a transposed copy of the weights.
 */
function weightGradient(context: GradientContext): (Value | undefined)[] {
  const [a, b] = [context.input(0), context.input(1)];
  const [inner, columns] = b.shape as unknown as [number, number];
  const count = elementCount(a.shape) / inner;
  const dc = reshape(context.gradient(0), [count, columns]);
  return [
    context.needs(0) ? reshape(gemm(dc, b, undefined, { transB: true }), a.shape) : undefined,
    context.needs(1)
      ? gemm(reshape(a, [count, inner]), dc, undefined, { transA: true })
      : undefined,
  ];
}

/**
 * The gradient of an operand that is itself a transpose is computed as a transpose, so that the two
 * cancel.
 */
function batchedGradient(context: GradientContext): (Value | undefined)[] {
  const { a, b, dc } = asMatrices(context);
  const whole = (gradient: Value, like: Value, input: Value) =>
    reshape(sumTo(gradient, like.shape), input.shape);
  return [
    context.needs(0) ? whole(product(dc, swapLast(b), a), a, context.input(0)) : undefined,
    context.needs(1) ? whole(product(swapLast(a), dc, b), b, context.input(1)) : undefined,
  ];
}

/**
 * left · right, computed as the transpose of rightᵀ · leftᵀ if `operand`, whose gradient it is, is
 * a transpose.
 */
function product(left: Value, right: Value, operand: Value): Value {
  const undone = swapLast(operand);
  const isTransposed = operand.builder.makerOf(operand)?.inputs[0] === undone.name;
  return isTransposed ? swapLast(matmulOf(swapLast(right), swapLast(left))) : matmulOf(left, right);
}

/**
 * The operands and the gradient, with 1-d operands as matrices and equal batches merged into one.
 */
function asMatrices(context: GradientContext): { a: Value; b: Value; dc: Value } {
  const [a, b, dc] = [context.input(0), context.input(1), context.gradient(0)];
  const batch = dc.shape.slice(
    0,
    dc.shape.length - Number(a.shape.length > 1) - Number(b.shape.length > 1),
  );
  const left = a.shape.length === 1 ? reshape(a, [1, ...a.shape]) : a;
  const right = b.shape.length === 1 ? reshape(b, [...b.shape, 1]) : b;
  const shape = [...batch, left.shape.at(-2) as number, right.shape.at(-1) as number];
  const matrices = reshape(dc, shape);
  return sameShape(left.shape.slice(0, -2), right.shape.slice(0, -2))
    ? { a: oneBatch(left), b: oneBatch(right), dc: oneBatch(matrices) }
    : { a: left, b: right, dc: matrices };
}
