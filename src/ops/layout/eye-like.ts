import type { OperatorDefinition } from "../../graph/index.ts";
import { dtypeFromOnnx } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";

/**
 * Ones on diagonal `k` and zeros elsewhere, in the shape of the input and of type `dtype` (or the
 * input's type).
 */
export const eyeLike: OperatorDefinition = {
  name: "EyeLike",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    dtype: { kind: "int", default: null },
    k: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    if (shape.length !== 2) context.fail("takes a matrix");
    if (!context.attributes.has("dtype")) return [{ dtype, shape }];
    const number = context.attributes.number("dtype");
    return [
      { dtype: dtypeFromOnnx(number) ?? context.failType(`type ${number} is not known`), shape },
    ];
  },
  gradient: { zero: "does not depend on the elements" },
  flops: noFlops,
  inPlace: false,
  divisions: { never: "its ones lie along one diagonal" },
};
