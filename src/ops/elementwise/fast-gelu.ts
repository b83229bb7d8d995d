import { add, sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { broadcastType, flopsPerElement } from "../shared.ts";
import { geluTanhGradient } from "./gelu.ts";

/** y = gelu(x + bias) by the tanh approximation; the bias may be omitted. */
export const fastGelu: OperatorDefinition = {
  name: "com.microsoft::FastGelu",
  inputs: [1, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    if (context.inputs[1] !== undefined && context.inputs[1].shape.length !== 1) {
      context.fail("the bias must have one dim");
    }
    return context.inputs[1] === undefined ? [context.input(0)] : [broadcastType(context)];
  },
  gradient: (context) => {
    const [x, bias] = [context.input(0), context.inputs[1]];
    const shifted = bias === undefined ? x : add(x, bias);
    const dx = geluTanhGradient(shifted, context.output(0), context.gradient(0));
    return [dx, bias !== undefined && context.needs(1) ? sumTo(dx, bias.shape) : undefined];
  },
  flops: flopsPerElement(16),
  inPlace: false,
  divisions: byElement,
};
