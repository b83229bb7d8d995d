/** Losses. Each builds a scalar. Default: the mean over the counted elements. */
import { LockstepError } from "../errors.ts";
import type { Value } from "../graph/index.ts";
import {
  anything,
  checkOptions,
  choice,
  finite,
  flag,
  type OptionKinds,
  positive,
  rate,
} from "../options.ts";
import { elementCount, formatShape, normalizeDim, sameShape } from "../tensor/index.ts";
import {
  abs,
  add,
  cast,
  div,
  equal,
  exp,
  log,
  maximum,
  minimum,
  mul,
  neg,
  not,
  softplus,
  sub,
  where,
} from "./elementwise.ts";
import { squeeze, unsqueeze } from "./layout.ts";
import { logSoftmax } from "./neural.ts";
import { reduceMean, reduceSum } from "./reduce.ts";

export interface LossOptions {
  /** Default: `mean`. */
  readonly reduction?: "mean" | "sum";
}

export interface CrossEntropyOptions extends LossOptions {
  /** The dim of the classes. Default: the last. */
  readonly axis?: number;
  /** The label of elements that are not counted. */
  readonly ignoreIndex?: number;
  /** In [0, 1): this share of the target is spread evenly over all classes. Default: 0. */
  readonly labelSmoothing?: number;
}

export interface HuberOptions extends LossOptions {
  /** The error at which the loss becomes linear. Default: 1. */
  readonly delta?: number;
}

export interface BinaryOptions extends LossOptions {
  /**
   * Multiplies the loss of targets that are 1: a number, or a value that broadcasts. Default: 1.
   */
  readonly positiveWeight?: Value | number;
}

export interface DivergenceOptions {
  /** Default: the mean over all dims but the last. */
  readonly reduction?: "batchMean" | "mean" | "sum";
  /** Whether the logarithm of the target is given. Default: false. */
  readonly logTarget?: boolean;
}

/** The schemas of the options of losses. */
export const LOSS_OPTIONS: OptionKinds<LossOptions> = {
  reduction: choice("mean", "sum").optional(),
};
export const CROSS_ENTROPY_OPTIONS: OptionKinds<CrossEntropyOptions> = {
  ...LOSS_OPTIONS,
  axis: finite.optional(),
  ignoreIndex: finite.optional(),
  labelSmoothing: rate.optional(),
};
export const HUBER_OPTIONS: OptionKinds<HuberOptions> = {
  ...LOSS_OPTIONS,
  delta: positive.optional(),
};
const BINARY_OPTIONS: OptionKinds<BinaryOptions> = {
  ...LOSS_OPTIONS,
  positiveWeight: anything.optional(),
};
const DIVERGENCE_OPTIONS: OptionKinds<DivergenceOptions> = {
  reduction: choice("batchMean", "mean", "sum").optional(),
  logTarget: flag.optional(),
};

/**
 * −log softmax(logits)[label]: `logits` has a dim of classes (`axis`), `labels` (int32 or int64)
 * has the same shape without it. Throws SHAPE_MISMATCH.
 */
export function crossEntropy(
  logits: Value,
  labels: Value,
  options: CrossEntropyOptions = {},
): Value {
  checkOptions("crossEntropy", options, CROSS_ENTROPY_OPTIONS);
  return nll(logSoftmax(logits, options.axis ?? -1), labels, options);
}

/** −logProbabilities[label]; shapes and options as for `crossEntropy`. */
export function nll(
  logProbabilities: Value,
  labels: Value,
  options: CrossEntropyOptions = {},
): Value {
  checkOptions("nll", options, CROSS_ENTROPY_OPTIONS);
  const { ignoreIndex, labelSmoothing = 0, reduction = "mean" } = options;
  const shape = logProbabilities.shape;
  const axis = normalizeDim(options.axis ?? -1, shape.length) ?? -1;
  const expected = shape.filter((_, dim) => dim !== axis);
  if (!sameShape(labels.shape, expected)) {
    throw new LockstepError(
      "SHAPE_MISMATCH",
      `Cross-entropy: labels for logits ${formatShape(shape)} must be ${formatShape(expected)}, ` +
        `got ${formatShape(labels.shape)}.`,
    );
  }
  const ignored = ignoreIndex === undefined ? undefined : equal(labels, ignoreIndex);
  const present = ignored === undefined ? labels : where(ignored, 0, labels);
  const picked = logProbabilities.builder.one(
    "GatherElements",
    [logProbabilities, unsqueeze(present, [axis])],
    { axis },
  );
  let scores = squeeze(picked, [axis]);
  if (labelSmoothing > 0) {
    const even = reduceMean(logProbabilities, { axes: [axis], keepdims: false });
    scores = add(mul(scores, 1 - labelSmoothing), mul(even, labelSmoothing));
  }
  if (ignored === undefined) return neg(reduceAll(scores, reduction));
  const counted = cast(not(ignored), scores.dtype);
  const total = neg(reduceSum(mul(scores, counted), { keepdims: false }));
  if (reduction === "sum") return total;
  return div(total, maximum(reduceSum(counted, { keepdims: false }), 1));
}

/** (prediction − target)². */
export function mse(prediction: Value, target: Value, options: LossOptions = {}): Value {
  checkOptions("mse", options, LOSS_OPTIONS);
  const error = difference("mse", prediction, target);
  return reduceAll(mul(error, error), options.reduction);
}

/** |prediction − target|. */
export function l1(prediction: Value, target: Value, options: LossOptions = {}): Value {
  checkOptions("l1", options, LOSS_OPTIONS);
  return reduceAll(abs(difference("l1", prediction, target)), options.reduction);
}

/** Half the square of errors up to `delta` (default 1), linear beyond (Huber 1964). */
export function huber(prediction: Value, target: Value, options: HuberOptions = {}): Value {
  checkOptions("huber", options, HUBER_OPTIONS);
  const size = abs(difference("huber", prediction, target));
  const inner = minimum(size, options.delta ?? 1);
  return reduceAll(mul(inner, sub(size, mul(inner, 0.5))), options.reduction);
}

/** −t·log σ(x) − (1−t)·log(1−σ(x)) of logits x and targets t in [0, 1], stable for any logit. */
export function binaryCrossEntropyWithLogits(
  logits: Value,
  target: Value,
  options: BinaryOptions = {},
): Value {
  checkOptions("binaryCrossEntropyWithLogits", options, BINARY_OPTIONS);
  sameShapes("binaryCrossEntropyWithLogits", logits, target);
  target.builder.expect(target, 0, 1);
  const { positiveWeight } = options;
  if (positiveWeight === undefined) {
    return reduceAll(sub(softplus(logits), mul(logits, target)), options.reduction);
  }
  const extra = typeof positiveWeight === "number" ? positiveWeight - 1 : sub(positiveWeight, 1);
  const weight = add(mul(target, extra), 1);
  const positive = mul(weight, softplus(neg(logits)));
  return reduceAll(add(mul(sub(1, target), logits), positive), options.reduction);
}

/**
 * Σ t·(log t − logProbabilities), the divergence of the target t from a prediction given as
 * log-probabilities (…, classes).
 */
export function klDivergence(
  logProbabilities: Value,
  target: Value,
  options: DivergenceOptions = {},
): Value {
  checkOptions("klDivergence", options, DIVERGENCE_OPTIONS);
  sameShapes("klDivergence", logProbabilities, target);
  const t = options.logTarget === true ? exp(target) : target;
  // 0 · log 0 is 0.
  const logT = options.logTarget === true ? target : log(maximum(target, 1e-30));
  const terms = mul(t, sub(logT, logProbabilities));
  if (options.reduction === "mean") return reduceAll(terms, "mean");
  const total = reduceAll(terms, "sum");
  if (options.reduction === "sum") return total;
  return div(total, elementCount(target.shape.slice(0, -1)));
}

function difference(loss: string, prediction: Value, target: Value): Value {
  sameShapes(loss, prediction, target);
  return sub(prediction, target);
}

/**
 * Throws if shapes differ: broadcasting a prediction against its target is nearly always a mistake.
 */
function sameShapes(loss: string, prediction: Value, target: Value): void {
  if (sameShape(prediction.shape, target.shape)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `${loss}: the prediction ${formatShape(prediction.shape)} and the target ` +
      `${formatShape(target.shape)} must have one shape.`,
    { hint: "Reshape one of them; losses do not broadcast." },
  );
}

function reduceAll(x: Value, reduction: "mean" | "sum" = "mean"): Value {
  return reduction === "mean"
    ? reduceMean(x, { keepdims: false })
    : reduceSum(x, { keepdims: false });
}
