import { clip, greater, mul, sumTo, where } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { sameShape } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { broadcastOf } from "./shared.ts";

/** y = x for x > 0, else slope · x; the slope is broadcast to the shape of x. */
export const prelu: OperatorDefinition = {
  name: "PRelu",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const [x, slope] = [context.input(0), context.input(1)];
    if (x.dtype !== slope.dtype) context.failType("x and slope must have one element type");
    if (!sameShape(broadcastOf(context, 0, 1), x.shape)) {
      context.fail("the slope must broadcast to the shape of x");
    }
    return [x];
  },
  gradient: (context) => {
    const [x, slope, dy] = [context.input(0), context.input(1), context.gradient(0)];
    return [
      context.needs(0) ? where(greater(x, 0), dy, mul(dy, slope)) : undefined,
      context.needs(1) ? sumTo(mul(dy, clip(x, undefined, 0)), slope.shape) : undefined,
    ];
  },
  flops: flopsPerElement(),
  inPlace: true,
  divisions: byElement,
};
