/** What many operators answer alike. */

import { LockstepError } from "../errors.ts";
import type { CostContext, GradientContext, InferContext } from "../graph/index.ts";
import {
  broadcastShapes,
  elementCount,
  isFloat,
  sameShape,
  type TensorType,
} from "../tensor/index.ts";

/** The type of an element-wise result: all inputs of one element type, shapes broadcast. */
export function broadcastType(context: InferContext): TensorType {
  const first = context.input(0);
  const types = context.inputs.map((_, index) => context.input(index));
  if (types.some((type) => type.dtype !== first.dtype)) {
    context.failType("inputs must have one element type");
  }
  const shape = broadcastShapes(...types.map((type) => type.shape));
  return { dtype: first.dtype, shape: shape ?? context.fail("shapes do not broadcast") };
}

/** The type of input 0, which must be a float. */
export function floatType(context: InferContext): TensorType {
  const type = context.input(0);
  if (!isFloat(type.dtype)) context.failType("takes floats");
  return type;
}

/** One operation for each element of output 0. */
export function flopsPerElement(count = 1): (context: CostContext) => number {
  return (context) => count * elementCount(context.outputs[0]?.shape ?? []);
}

/** Moves data and computes nothing. */
export const noFlops = (): number => 0;

export function sameShapes(types: readonly TensorType[]): boolean {
  return types.every((type) => sameShape(type.shape, types[0]?.shape ?? []));
}

/** In a gradient rule: says that it does not cover this use of the operator. */
export function noGradient(context: GradientContext, what: string, hint: string): never {
  throw new LockstepError("NO_GRADIENT", `The operator ${context.op} has no gradient ${what}.`, {
    hint,
    fields: { operator: context.op },
  });
}

/** In type inference: says that a setting of the operator is not known to us. */
export function unsupported(context: InferContext, what: string, hint?: string): never {
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `The operator ${context.op} is not supported with ${what}.`,
    { ...(hint === undefined ? {} : { hint }), fields: { operator: context.op } },
  );
}
