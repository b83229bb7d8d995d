import { add, sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { broadcastType, flopsPerElement } from "../shared.ts";
import { geluGradient } from "./gelu.ts";

/** y = gelu(a + bias), bias over the last dim. */
export const biasGelu: OperatorDefinition = {
  name: "com.microsoft::BiasGelu",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    if (context.input(1).shape.length !== 1) context.fail("the bias must have one dim");
    return [broadcastType(context)];
  },
  gradient: (context) => {
    const [a, bias] = [context.input(0), context.input(1)];
    const da = geluGradient(add(a, bias), context.gradient(0));
    return [sumTo(da, a.shape), context.needs(1) ? sumTo(da, bias.shape) : undefined];
  },
  flops: flopsPerElement(16),
  inPlace: false,
  divisions: byElement,
};
