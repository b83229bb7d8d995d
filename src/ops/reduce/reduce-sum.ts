import { expand, reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { keptShape, REDUCE_ATTRIBUTES, reducedType } from "./shared.ts";

/** Sum over the dims in input 1 (all, if it is left out). */
export const reduceSum: OperatorDefinition = {
  name: "ReduceSum",
  inputs: [1, 2],
  outputs: [1, 1],
  attributes: REDUCE_ATTRIBUTES,
  infer: (context) => [reducedType(context)],
  gradient: (context) => {
    const x = context.input(0);
    return [expand(reshape(context.gradient(0), keptShape(context)), x.shape), undefined];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
};
