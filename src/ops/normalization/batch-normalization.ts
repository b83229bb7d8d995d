import {
  add,
  cast,
  mul,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type {
  AttributeReader,
  Division,
  DivisionContext,
  GradientContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { byteLength, elementCount } from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { checkedChannels, stashType } from "./shared.ts";

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
  divisions: batchDivisions,
};

/**
 * By channels, and along any other dim: in training, ranks then exchange the sums from which the
 * statistics of the batch follow.
 */
function batchDivisions(context: DivisionContext): Division[] {
  const { dtype, shape } = context.input(0);
  const isTraining = context.attributes.number("training_mode") !== 0;
  const statistics = context.outputs.slice(1);
  const exchanged = 2 * byteLength({ dtype: stashType(dtype), shape: [shape[1] as number] });
  return shape.flatMap((_, dim) => {
    if (dim === 1) {
      return along(context, { inputs: [1, 0, 0, 0, 0], outputs: [1, ...statistics.map(() => 0)] });
    }
    const cut = along(context, {
      inputs: [dim, ...context.inputs.slice(1).map(() => undefined)],
      outputs: [dim, ...statistics.map(() => undefined)],
      local: isTraining ? trainingPart : undefined,
    });
    return isTraining ? cut.map((division) => ({ ...division, exchanged })) : cut;
  });
}

/**
 * Training with a part of the samples, or of the places, normalized as in the whole batch. Sums over
 * a batch overflow in float16, so statistics are taken in a wider type.
 */
function trainingPart({ input, attributes, allReduce, ranks }: LocalContext): readonly Value[] {
  const { dtype } = input(0);
  const wide = (index: number) => cast(input(index), stashType(dtype));
  const [x, scale, bias] = [wide(0), wide(1), wide(2)];
  const axes = otherDims(x);
  const count = ranks * elementCount(axes.map((dim) => x.shape[dim] as number));
  const mean = (value: Value) => mul(allReduce(reduceSum(value, { axes }), "sum"), 1 / count);
  const center = mean(x);
  const centered = sub(x, center);
  const variance = mean(mul(centered, centered));
  const factor = mul(perChannel(scale, x), inverseDeviation(attributes, variance));
  const momentum = attributes.number("momentum");
  const running = (old: Value, now: Value) =>
    add(mul(old, momentum), mul(reshape(now, old.shape), 1 - momentum));
  return [
    add(mul(centered, factor), perChannel(bias, x)),
    running(wide(3), center),
    running(wide(4), variance),
  ].map((made) => cast(made, dtype));
}

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
function inverseDeviation(attributes: AttributeReader, variance: Value): Value {
  return reciprocal(sqrt(add(variance, attributes.number("epsilon"))));
}

/** The gradient in inference: the statistics are inputs like others. */
function inferenceGradient(context: GradientContext): (Value | undefined)[] {
  const [x, scale, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const axes = otherDims(x);
  const inverse = inverseDeviation(context.attributes, context.input(4));
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
  const inverse = inverseDeviation(context.attributes, variance);
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
