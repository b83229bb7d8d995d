import { exp, mul, reduceSum, sub } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { flopsPerElement } from "../shared.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** x − log Σ exp(x) along `axis`. */
export const logSoftmax: OperatorDefinition = {
  name: "LogSoftmax",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: AXIS,
  infer: (context) => [checkedFloat(context)],
  // dy − exp(y) · Σ dy
  gradient: (context) => {
    const [y, dy] = [context.output(0), context.gradient(0)];
    const total = reduceSum(dy, { axes: [axisOf(context.attributes, y.shape)] });
    return [sub(dy, mul(exp(y), total))];
  },
  flops: flopsPerElement(5),
  inPlace: true,
};
