import { cast as convert } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { isFloat } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Input 0 converted to the element type of input 1. */
export const castLike: OperatorDefinition = {
  name: "CastLike",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { saturate: { kind: "int", default: 1 } },
  infer: (context) => [{ dtype: context.input(1).dtype, shape: context.input(0).shape }],
  gradient: (context) => {
    const { dtype } = context.input(0);
    return [isFloat(dtype) ? convert(context.gradient(0), dtype) : undefined, undefined];
  },
  flops: noFlops,
  inPlace: true,
  divisions: (context) => exceptAlong(context, []),
};
