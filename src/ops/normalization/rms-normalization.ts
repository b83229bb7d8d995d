import {
  add,
  gemm,
  mul,
  reciprocal,
  reduceMean,
  reshape,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import {
  axisOf,
  checkBroadcast,
  checkedFloat,
  dimsFrom,
  dimsFromAxis,
  normalizedRows,
} from "./shared.ts";

/**
 * x / √(mean of squares + epsilon) · scale over the dims from `axis` on (Zhang & Sennrich 2019).
 */
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
    checkBroadcast(context, 1, type.shape.slice(axisOf(context.attributes, type.shape)));
    return [type];
  },
  // With r = 1/√(mean x² + ε) and g = dy · scale: dx = r · (g − x · r² · mean(g · x)).
  gradient: (context) => {
    const { count, size, rows, vector, toScale } = normalizedRows(context);
    const [x, dy] = [rows(context.input(0)), rows(context.gradient(0))];
    const scale = vector(context.input(1));
    const square = reduceMean(mul(x, x), { axes: [1] });
    const inverse = reciprocal(sqrt(add(square, context.attributes.number("epsilon"))));
    const product = mul(dy, x);
    const dx = () => {
      const along = gemm(product, mul(reshape(scale, [size, 1]), 1 / size));
      const bend = mul(x, mul(along, mul(inverse, inverse)));
      return reshape(mul(sub(mul(dy, scale), bend), inverse), context.input(0).shape);
    };
    const dScale = () =>
      toScale(gemm(reshape(inverse, [1, count]), product), context.input(1).shape);
    return [context.needs(0) ? dx() : undefined, context.needs(1) ? dScale() : undefined];
  },
  flops: flopsPerElement(5),
  inPlace: false,
  batch: { mixes: dimsFromAxis },
  divisions: (context) => {
    const { shape } = context.input(0);
    return exceptAlong(context, dimsFrom(axisOf(context.attributes, shape), shape));
  },
};
