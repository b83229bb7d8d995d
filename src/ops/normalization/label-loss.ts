/**
 * The two losses of ONNX that take class indices: scores or log-probabilities (N, C, …) and labels
 * (N, …).
 */
import {
  add,
  div,
  exp,
  expand,
  mul,
  neg,
  reduceSum,
  reshape,
  scatterElements,
  sub,
  unsqueeze,
} from "../../functional/index.ts";
import type {
  AttributeSpec,
  BatchContext,
  GradientContext,
  IndexUse,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { type Shape, sameShape } from "../../tensor/index.ts";
import { linearDivisions } from "../divisions.ts";
import { sumAt } from "../indexing/index.ts";
import { floatType, flopsPerElement, noGradient } from "../shared.ts";
import { labelLossDivisions } from "./label-loss-divisions.ts";
import { weigh } from "./label-weights.ts";

const ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  ignore_index: { kind: "int", default: null },
  reduction: { kind: "string", default: "mean" },
};

/** −weight · log softmax(scores)[label]. Output 1 holds the log-probabilities. */
export const softmaxCrossEntropyLoss: OperatorDefinition = {
  name: "SoftmaxCrossEntropyLoss",
  inputs: [2, 3],
  outputs: [1, 2],
  attributes: ATTRIBUTES,
  infer: (context) => [lossType(context), context.input(0)],
  // (softmax − one-hot) · weight, and through the log-probabilities dl − softmax · Σ dl.
  gradient: (context) => {
    const [dLoss, dLog] = context.gradients;
    const softmax = exp(context.output(1));
    const parts: Value[] = [];
    if (dLoss !== undefined) {
      const { labels, share } = shares(context, dLoss);
      parts.push(scatterElements(mul(softmax, share), labels, neg(share), 1, "add"));
    }
    if (dLog !== undefined) {
      parts.push(sub(dLog, mul(softmax, reduceSum(dLog, { axes: [1] }))));
    }
    return [parts.length === 0 ? undefined : parts.reduce((left, right) => add(left, right))];
  },
  indices: labelsOf,
  flops: (context) => 6 * flopsPerElement()({ ...context, outputs: [context.input(0)] }),
  inPlace: false,
  batch: { reduces: (context) => ofBatch("SoftmaxCrossEntropyLoss", context) },
  divisions: (context) => labelLossDivisions(context, true),
};

/** −weight · x[label] of log-probabilities x. */
export const negativeLogLikelihoodLoss: OperatorDefinition = {
  name: "NegativeLogLikelihoodLoss",
  inputs: [2, 3],
  outputs: [1, 1],
  attributes: ATTRIBUTES,
  infer: (context) => [lossType(context)],
  gradient: (context) => {
    const { labels, share } = shares(context, context.gradient(0));
    return [sumAt(labels, neg(share), 1, context.input(0).shape)];
  },
  indices: labelsOf,
  flops: flopsPerElement(2),
  inPlace: false,
  batch: { reduces: (context) => ofBatch("NegativeLogLikelihoodLoss", context) },
  divisions: (context) => [
    ...labelLossDivisions(context, false),
    ...linearDivisions(context, "first"),
  ],
};

function labelsOf(context: InferContext): IndexUse[] {
  const places = [context.input(0).shape[1] as number];
  const { attributes } = context;
  const ignored = attributes.has("ignore_index") ? attributes.number("ignore_index") : undefined;
  return [{ input: 1, places, wraps: false, ...(ignored === undefined ? {} : { ignored }) }];
}

function lossType(context: InferContext) {
  const { dtype, shape } = floatType(context);
  const [labels, weights] = [context.input(1), context.inputs[2]];
  const expected = shape.filter((_, dim) => dim !== 1);
  if (shape.length < 2 || !sameShape(labels.shape, expected)) {
    context.fail(`labels must be [${expected.join(", ")}]: one for each line of classes (dim 1)`);
  }
  if (weights !== undefined && !sameShape(weights.shape, [shape[1] as number])) {
    context.fail(`weights must have one element for each of ${shape[1]} classes`);
  }
  const reduction = context.attributes.string("reduction");
  if (!["none", "mean", "sum"].includes(reduction)) {
    context.fail(`reduction is none, mean or sum, got "${reduction}"`);
  }
  return { dtype, shape: reduction === "none" ? expected : ([] as Shape) };
}

/**
 * The weight of each labelled element in the loss, times the loss's gradient; labels and weights
 * are (N, 1, …).
 */
function shares(context: GradientContext, dLoss: Value): { labels: Value; share: Value } {
  const [x, given, weights] = [context.input(0), context.input(1), context.inputs[2]];
  if (context.needs(2)) {
    noGradient(context, "for its class weights", "Keep the weights of the classes constant.");
  }
  const { labels, weight } = weigh(context, x, given, weights);
  const reduction = context.attributes.string("reduction");
  let factor = dLoss;
  if (reduction === "mean") {
    const count = given.shape.reduce((a, b) => a * b, 1);
    factor =
      weight === undefined
        ? mul(dLoss, 1 / count)
        : div(dLoss, reduceSum(weight, { keepdims: false }));
  }
  const share = weight === undefined ? expand(factor, given.shape) : mul(weight, factor);
  return { labels: unsqueeze(labels, [1]), share: reshape(share, expandedShape(given.shape)) };
}

function expandedShape([batch, ...rest]: Shape): Shape {
  return [batch as number, 1, ...rest];
}

/** A weighted mean is the weighted sum divided by the sum of the weights. */
function ofBatch(op: string, context: BatchContext): "sum" | "mean" | Value | undefined {
  const { attributes, builder } = context;
  const [x, given, weights] = [context.input(0), context.input(1), context.inputs[2]];
  const reduction = attributes.string("reduction");
  if (reduction !== "mean") return reduction === "sum" ? "sum" : undefined;
  const { weight } = weigh(context, x, given, weights);
  if (weight === undefined) return "mean";
  const ignored = attributes.has("ignore_index")
    ? { ignore_index: attributes.number("ignore_index") }
    : {};
  const total = builder.one(op, [x, given, weights], { reduction: "sum", ...ignored });
  return div(total, reduceSum(weight, { keepdims: false }));
}
