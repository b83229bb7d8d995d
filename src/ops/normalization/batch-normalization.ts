import {
  add,
  mul,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { flopsPerElement } from "../shared.ts";
import { checkedChannels } from "./shared.ts";

/**
 * (x − mean) / √(variance + epsilon) · scale + bias for each channel of X (N, C, …) (Ioffe &
 * Szegedy 2015). With `training_mode` the statistics are those of the batch, and outputs 1 and 2
 * are the running ones: momentum · old + (1 − momentum) · batch (with the population variance, as
 * ONNX defines it).
 */
export const batchNormalization: OperatorDefinition = {
  name: "BatchNormalization",
  inputs: [5, 5],
  outputs: [1, 3],
  attributes: {
    epsilon: { kind: "float", default: 1e-5 },
    momentum: { kind: "float", default: 0.9 },
    training_mode: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const type = checkedChannels(context, 2, 4);
    const outputs = context.attributes.number("training_mode") === 0 ? 1 : 3;
    if (outputs === 3 && elementCount(type.shape) === type.shape[1]) {
      context.fail(
        "there is one value for each channel, whose statistics say nothing",
        "Use more samples in a micro-batch.",
      );
    }
    if (context.outputCount !== outputs) {
      context.fail(`has ${outputs} outputs with this training_mode, got ${context.outputCount}`);
    }
    return [type, context.input(3), context.input(4)];
  },
  gradient: (context) =>
    context.attributes.number("training_mode") === 0
      ? inferenceGradient(context)
      : trainingGradient(context),
  flops: flopsPerElement(4),
  inPlace: false,
};

/** All dims except that of the channels. */
function otherDims(x: Value): number[] {
  return x.shape.map((_, dim) => dim).filter((dim) => dim !== 1);
}

/** A vector over channels, shaped to broadcast over X. */
function perChannel(vector: Value, x: Value): Value {
  return reshape(
    vector,
    x.shape.map((size, dim) => (dim === 1 ? size : 1)),
  );
}

/** 1/√(variance + epsilon). */
function inverseDeviation(context: GradientContext, variance: Value): Value {
  return reciprocal(sqrt(add(variance, context.attributes.number("epsilon"))));
}

/** The gradient in inference: the statistics are inputs like others. */
function inferenceGradient(context: GradientContext): (Value | undefined)[] {
  const [x, scale, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const axes = otherDims(x);
  const inverse = inverseDeviation(context, context.input(4));
  const factor = mul(scale, inverse);
  const total = reduceSum(dy, { axes, keepdims: false });
  const along = () => {
    const centered = sub(x, perChannel(context.input(3), x));
    return reduceSum(mul(dy, centered), { axes, keepdims: false });
  };
  const variance = () => mul(mul(mul(along(), factor), mul(inverse, inverse)), -0.5);
  return [
    context.needs(0) ? mul(dy, perChannel(factor, x)) : undefined,
    context.needs(1) ? mul(along(), inverse) : undefined,
    context.needs(2) ? total : undefined,
    context.needs(3) ? mul(mul(total, factor), -1) : undefined,
    context.needs(4) ? variance() : undefined,
  ];
}

/**
 * The gradient through the batch's mean and variance: dx = a·dy + b·(x − mean) + c with one a, b, c
 * for each channel. Running statistics are state: no gradient flows through outputs 1 and 2.
 */
function trainingGradient(context: GradientContext): (Value | undefined)[] {
  const [x, scale, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const axes = otherDims(x);
  const count = elementCount(axes.map((dim) => x.shape[dim] as number));
  const centered = sub(x, reduceMean(x, { axes }));
  const variance = reduceMean(mul(centered, centered), { axes });
  const inverse = inverseDeviation(context, variance);
  const total = reduceSum(dy, { axes });
  const along = reduceSum(mul(dy, centered), { axes });
  const a = mul(perChannel(scale, x), inverse);
  const b = mul(mul(mul(a, along), mul(inverse, inverse)), -1 / count);
  const c = mul(mul(a, total), -1 / count);
  return [
    context.needs(0) ? add(add(mul(dy, a), mul(centered, b)), c) : undefined,
    reshape(mul(along, inverse), scale.shape),
    reshape(total, scale.shape),
    undefined,
    undefined,
  ];
}
