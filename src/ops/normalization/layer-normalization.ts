import { add, cast, expand, mul, reduceMean, sub, sumTo } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { flopsPerElement } from "../shared.ts";
import {
  axisOf,
  checkBroadcast,
  checkedFloat,
  dimsFrom,
  stashType,
  statistic,
  statisticsShape,
} from "./shared.ts";

/**
 * (x − mean) / √(variance + epsilon) · scale + bias over the dims from `axis` on (Ba et al. 2016). Outputs 1 and 2 are
 * the mean and the inverse deviation.
 */
export const layerNormalization: OperatorDefinition = {
  name: "LayerNormalization",
  inputs: [2, 3],
  outputs: [1, 3],
  attributes: {
    axis: { kind: "int", default: -1 },
    epsilon: { kind: "float", default: 1e-5 },
    stash_type: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const type = checkedFloat(context);
    const axis = axisOf(context.attributes, type.shape);
    checkBroadcast(context, 1, type.shape);
    checkBroadcast(context, 2, type.shape);
    const statistics = {
      dtype: stashType(type.dtype),
      shape: statisticsShape(type.shape, axis),
    };
    return [type, statistics, statistics];
  },
  gradient: (context) => {
    const scale = context.input(1);
    const dy = context.gradients[0];
    const inverse = statistic(context, 2);
    const normal = mul(sub(context.input(0), statistic(context, 1)), inverse);
    const product = dy && mul(dy, normal);
    return [
      context.needs(0) ? inputGradient(context, normal, inverse) : undefined,
      product && context.needs(1) ? sumTo(product, scale.shape) : undefined,
      dy && context.needs(2) ? sumTo(dy, context.input(2).shape) : undefined,
    ];
  },
  flops: flopsPerElement(8),
  inPlace: false,
};

/** inverse · (g − mean(g) − normal · mean(g · normal)) with g = dy · scale, and the parts through the statistics. */
function inputGradient(context: GradientContext, normal: Value, inverse: Value): Value | undefined {
  const x = context.input(0);
  const axes = dimsFrom(axisOf(context.attributes, x.shape), x.shape.length);
  const count = elementCount(axes.map((dim) => x.shape[dim] as number));
  const [dy, dMean, dInverse] = context.gradients;
  const parts: Value[] = [];
  if (dy !== undefined) {
    const g = mul(dy, context.input(1));
    const centered = sub(g, reduceMean(g, { axes }));
    const along = reduceMean(mul(g, normal), { axes });
    parts.push(mul(sub(centered, mul(normal, along)), inverse));
  }
  if (dInverse !== undefined) {
    const slope = mul(mul(cast(dInverse, x.dtype), mul(inverse, inverse)), -1 / count);
    parts.push(mul(normal, slope));
  }
  if (dMean !== undefined) {
    const share = mul(cast(dMean, x.dtype), 1 / count);
    parts.push(parts.length === 0 ? expand(share, x.shape) : share);
  }
  return parts.length === 0 ? undefined : parts.reduce((left, right) => add(left, right));
}
