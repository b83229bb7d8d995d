/** What random operators have in common. */
import type {
  AttributeSpec,
  GradientRule,
  InferContext,
  OperatorDefinition,
} from "../../graph/index.ts";
import { type DType, dtypeFromOnnx, isFloat, type Shape } from "../../tensor/index.ts";
import { flopsPerElement } from "../shared.ts";

export const NORMAL: Readonly<Record<string, AttributeSpec>> = {
  mean: { kind: "float", default: 0 },
  scale: { kind: "float", default: 1 },
};

export const UNIFORM: Readonly<Record<string, AttributeSpec>> = {
  low: { kind: "float", default: 0 },
  high: { kind: "float", default: 1 },
};

const SHARED: Readonly<Record<string, AttributeSpec>> = {
  dtype: { kind: "int", default: null },
  seed: { kind: "float", default: null },
};

const gradient: GradientRule = { zero: "what is drawn does not depend on the input" };

/** The type that `dtype` names; otherwise the type of the input, or float32. */
function drawnType(context: InferContext, otherwise: DType): DType {
  if (!context.attributes.has("dtype")) return otherwise;
  const number = context.attributes.number("dtype");
  return dtypeFromOnnx(number) ?? context.failType(`type ${number} is not known`);
}

/** Random numbers in the shape of the input or, for Bernoulli, with the probabilities in it. */
export function drawnLike(
  name: string,
  attributes: Readonly<Record<string, AttributeSpec>>,
): OperatorDefinition {
  return {
    name,
    inputs: [1, 1],
    outputs: [1, 1],
    attributes: { ...attributes, ...SHARED },
    infer: (context) => {
      const { dtype, shape } = context.input(0);
      return [{ dtype: drawnType(context, dtype), shape }];
    },
    gradient,
    draws: true,
    divisions: { never: "each rank would draw numbers of its own" },
    flops: flopsPerElement(8),
    inPlace: false,
  };
}

/** Random numbers in a given shape. */
export function drawn(
  name: string,
  attributes: Readonly<Record<string, AttributeSpec>>,
): OperatorDefinition {
  return {
    name,
    inputs: [0, 0],
    outputs: [1, 1],
    attributes: { ...attributes, ...SHARED, shape: { kind: "ints" } },
    infer: (context) => {
      const shape: Shape = context.attributes.numbers("shape");
      const dtype = drawnType(context, "float32");
      if (!isFloat(dtype)) context.failType("draws floats");
      return [{ dtype, shape }];
    },
    gradient,
    draws: true,
    divisions: { never: "each rank would draw numbers of its own" },
    flops: flopsPerElement(8),
    inPlace: false,
  };
}
