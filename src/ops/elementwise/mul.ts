import { sumTo, mul as times } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { broadcastType, flopsPerElement } from "../shared.ts";

/** c = a · b. */
export const mul: OperatorDefinition = {
  name: "Mul",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [broadcastType(context)],
  gradient: (context) => {
    const [a, b, dc] = [context.input(0), context.input(1), context.gradient(0)];
    return [
      context.needs(0) ? sumTo(times(dc, b), a.shape) : undefined,
      context.needs(1) ? sumTo(times(dc, a), b.shape) : undefined,
    ];
  },
  flops: flopsPerElement(),
  inPlace: true,
};
