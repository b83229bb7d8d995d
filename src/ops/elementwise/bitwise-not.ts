import type { OperatorDefinition } from "../../graph/index.ts";
import { isFloat } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";

/** Inverts all bits of an integer. */
export const bitwiseNot: OperatorDefinition = {
  name: "BitwiseNot",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const type = context.input(0);
    if (isFloat(type.dtype) || type.dtype === "bool") context.failType("takes integers");
    return [type];
  },
  gradient: { zero: "BitwiseNot gives integers" },
  flops: flopsPerElement(),
  inPlace: false,
  divisions: byElement,
};
