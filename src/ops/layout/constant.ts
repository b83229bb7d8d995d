import type { InferContext, OperatorDefinition } from "../../graph/index.ts";
import type { TensorType } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";

/**
 * A constant as a node. Our own graphs hold constants by name; imported graphs contain such nodes.
 */
export const constant: OperatorDefinition = {
  name: "Constant",
  inputs: [0, 0],
  outputs: [1, 1],
  attributes: {
    value: { kind: "tensor", default: null },
    value_float: { kind: "float", default: null },
    value_floats: { kind: "floats", default: null },
    value_int: { kind: "int", default: null },
    value_ints: { kind: "ints", default: null },
  },
  infer: (context) => [typeOfConstant(context)],
  gradient: { zero: "a constant" },
  flops: noFlops,
  inPlace: false,
  divisions: { never: "it is a constant, which every rank has" },
};

function typeOfConstant({ attributes, fail }: InferContext): TensorType {
  if (attributes.has("value")) {
    const { dtype, shape } = attributes.tensor("value");
    return { dtype, shape };
  }
  if (attributes.has("value_float")) return { dtype: "float32", shape: [] };
  if (attributes.has("value_int")) return { dtype: "int64", shape: [] };
  if (attributes.has("value_floats")) {
    return { dtype: "float32", shape: [attributes.numbers("value_floats").length] };
  }
  if (attributes.has("value_ints")) {
    return { dtype: "int64", shape: [attributes.numbers("value_ints").length] };
  }
  return fail("has no value (strings and sparse values are not supported)");
}
