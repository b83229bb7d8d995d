/** What many operators have in common. */

import { LockstepError } from "../errors.ts";
import type { CostContext, GradientContext, InferContext, Value } from "../graph/index.ts";
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

/** The cost of an operator that only moves data. */
export const noFlops = (): number => 0;

export function sameShapes(types: readonly TensorType[]): boolean {
  return types.every((type) => sameShape(type.shape, types[0]?.shape ?? []));
}

/** In a gradient rule: reports that it does not cover this use of the operator. */
export function noGradient(context: GradientContext, what: string, hint: string): never {
  throw new LockstepError("NO_GRADIENT", `The operator ${context.op} has no gradient ${what}.`, {
    hint,
    fields: { operator: context.op },
  });
}

/** In type inference: reports a setting of the operator that is not supported. */
export function unsupported(context: InferContext, what: string, hint?: string): never {
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `The operator ${context.op} is not supported with ${what}.`,
    { ...(hint === undefined ? {} : { hint }), fields: { operator: context.op } },
  );
}

/**
 * The gradient rule of an operator that states how its outputs can be composed of other operators:
 * those are differentiated, and the forward graph keeps the operator itself. Inputs are wrapped in
 * Identity nodes, so that the backward pass ends at them whatever the composition looks up behind
 * its inputs.
 */
export function throughComposition(
  compose: (context: GradientContext) => readonly Value[],
): (context: GradientContext) => readonly (Value | undefined)[] {
  return (context) => {
    const wanted = context.inputs.map((_, index) => context.needs(index));
    const inputs = context.inputs.map((value, index) =>
      wanted[index] === true ? context.builder.one("Identity", [value]) : value,
    );
    const input = (index: number) => inputs[index] ?? context.input(index);
    const outputs = compose({ ...context, inputs, input });
    const seeded = outputs.filter((_, index) => context.gradients[index] !== undefined);
    const seeds = context.gradients.filter((gradient) => gradient !== undefined);
    const sources = inputs.filter((_, index) => wanted[index]) as Value[];
    const found = context.backward(seeded, sources, seeds);
    let next = 0;
    return wanted.map((isWanted) => (isWanted ? found[next++] : undefined));
  };
}
