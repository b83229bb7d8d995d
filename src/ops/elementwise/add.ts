import { sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { broadcastType, flopsPerElement } from "../shared.ts";

/** c = a + b. */
export const add: OperatorDefinition = {
  name: "Add",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [broadcastType(context)],
  gradient: (context) => {
    const dc = context.gradient(0);
    return [sumTo(dc, context.input(0).shape), sumTo(dc, context.input(1).shape)];
  },
  flops: flopsPerElement(),
  inPlace: true,
};
