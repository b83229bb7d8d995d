import { add, mul, reciprocal, reduceMean, sqrt, sub, sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { flopsPerElement } from "../shared.ts";
import { axisOf, checkBroadcast, checkedFloat, dimsFrom } from "./shared.ts";

/** x / √(mean of squares + epsilon) · scale over the dims from `axis` on (Zhang & Sennrich 2019). */
export const rmsNormalization: OperatorDefinition = {
  name: "RMSNormalization",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    axis: { kind: "int", default: -1 },
    epsilon: { kind: "float", default: 1e-5 },
    stash_type: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const type = checkedFloat(context);
    checkBroadcast(context, 1, type.shape);
    return [type];
  },
  // With r = 1/√(mean x² + ε), n = x·r, g = dy·scale: dx = r · (g − n · mean(g·n)).
  gradient: (context) => {
    const [x, scale, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const axes = dimsFrom(axisOf(context.attributes, x.shape), x.shape.length);
    const square = reduceMean(mul(x, x), { axes });
    const inverse = reciprocal(sqrt(add(square, context.attributes.number("epsilon"))));
    const normal = mul(x, inverse);
    const g = mul(dy, scale);
    const along = reduceMean(mul(g, normal), { axes });
    return [
      context.needs(0) ? mul(sub(g, mul(normal, along)), inverse) : undefined,
      context.needs(1) ? sumTo(mul(dy, normal), scale.shape) : undefined,
    ];
  },
  flops: flopsPerElement(5),
  inPlace: false,
};
