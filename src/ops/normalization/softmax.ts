import { mul, reduceSum, sub } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { flopsPerElement } from "../shared.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** exp(x) / Σ exp(x) along `axis`. */
export const softmax: OperatorDefinition = {
  name: "Softmax",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: AXIS,
  infer: (context) => [checkedFloat(context)],
  // p · (dp − Σ p·dp)
  gradient: (context) => {
    const [p, dp] = [context.output(0), context.gradient(0)];
    const total = reduceSum(mul(p, dp), { axes: [axisOf(context.attributes, p.shape)] });
    return [mul(p, sub(dp, total))];
  },
  flops: flopsPerElement(5),
  inPlace: true,
};
