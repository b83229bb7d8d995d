/**
 * Losses on a model from a file: its outputs are given by name, and so are the fields of the batch
 * that they are compared with (`labels`, `target`), which become inputs of the graph. If values are
 * given instead of names, the losses are those of `functional/`.
 */
import * as functional from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { accuracy, type ModelOutputs } from "../nn/index.ts";
import { checkOptions, finite, type OptionKinds, word } from "../options.ts";
import { type DType, normalizeDim, type Shape } from "../tensor/index.ts";

/** The context in which a loss on an imported model is built. */
export interface OnnxLossContext {
  /** The number of samples of one execution. */
  readonly batch: number;
  readonly mode: "train" | "eval";
  /**
   * An output of the model, or any value inside of it, by its name in the file. Throws
   * INVALID_OPTION.
   */
  output(name: string): Value;
  /** A field of the batch: an input of the model with this name, or a new one of this type. */
  field(name: string, shape: Shape, dtype: DType): Value;
}

/**
 * A function that builds a scalar (and possibly other outputs), or the name of an output that is a
 * scalar.
 */
export type OnnxLoss = string | ((context: OnnxLossContext) => Value | ModelOutputs);

/** The name of an output, and that of the field with which it is compared. */
export interface Compared {
  /** The name of the model's output. */
  readonly prediction: string;
  /** The name of the field of the batch; it has the same shape. */
  readonly target: string;
}

export interface Classified {
  /**
   * The name of the model's output: scores before softmax, with the classes in dim `axis`. Default
   * of `axis`: the last dim.
   */
  readonly logits: string;
  /**
   * The name of the field of the batch: int32, in the shape of the logits without the dim of
   * classes.
   */
  readonly labels: string;
}

export interface BinaryClassified {
  /** The name of the model's output: scores before the sigmoid. */
  readonly logits: string;
  /** The name of the field of the batch; it has the same shape, with values in [0, 1]. */
  readonly target: string;
}

/** A loss that accepts values or names. */
export interface ComparedLoss<O> {
  (prediction: Value, target: Value, options?: O): Value;
  (names: Compared & O): OnnxLoss;
}

const COMPARED = { prediction: word, target: word };
const BINARY = {
  logits: word,
  target: word,
  ...functional.LOSS_OPTIONS,
  positiveWeight: finite.optional(),
};
const CLASSIFIED: OptionKinds<Classified & functional.CrossEntropyOptions> = {
  logits: word,
  labels: word,
  ...functional.CROSS_ENTROPY_OPTIONS,
};

function isValue(given: object): given is Value {
  return "builder" in given;
}

function compared<O extends object>(
  loss: (a: Value, b: Value, options?: O) => Value,
  own: OptionKinds<O>,
): ComparedLoss<O> {
  const kinds = { ...COMPARED, ...own };
  function either(first: Value, target: Value, options?: O): Value;
  function either(first: Compared & O): OnnxLoss;
  function either(first: Value | (Compared & O), target?: Value, options?: O): Value | OnnxLoss {
    if (isValue(first)) return loss(first, target as Value, options);
    checkOptions<object>(loss.name, first, kinds);
    const { prediction, target: field, ...rest } = first;
    return (context) => {
      const value = context.output(prediction);
      const wanted = context.field(field, value.shape, value.dtype);
      return loss(value, wanted, rest as unknown as O);
    };
  }
  return either;
}

/** Mean squared error, of values or of an output: `mse({ prediction: "output", target: "y" })`. */
export const mse = compared<functional.LossOptions>(functional.mse, functional.LOSS_OPTIONS);

/** Mean absolute error, of values or of an output. */
export const l1 = compared<functional.LossOptions>(functional.l1, functional.LOSS_OPTIONS);

/** Huber's loss, of values or of an output. */
export const huber = compared<functional.HuberOptions>(functional.huber, functional.HUBER_OPTIONS);

/**
 * Cross-entropy with labels, of values or of an output: `crossEntropy({ logits: "output", labels:
 * "labels" })`. For a matrix of logits it also defines the output `accuracy`.
 */
export function crossEntropy(
  logits: Value,
  labels: Value,
  options?: functional.CrossEntropyOptions,
): Value;
export function crossEntropy(names: Classified & functional.CrossEntropyOptions): OnnxLoss;
export function crossEntropy(
  first: Value | (Classified & functional.CrossEntropyOptions),
  labels?: Value,
  options?: functional.CrossEntropyOptions,
): Value | OnnxLoss {
  if (isValue(first)) return functional.crossEntropy(first, labels as Value, options);
  checkOptions("crossEntropy", first, CLASSIFIED);
  const { logits, labels: field, ...rest } = first;
  return (context) => {
    const value = context.output(logits);
    const axis = normalizeDim(rest.axis ?? -1, value.shape.length);
    const shape = value.shape.filter((_, dim) => dim !== axis);
    const wanted = context.field(field, shape, "int32");
    const loss = functional.crossEntropy(value, wanted, rest);
    const isMatrix = value.shape.length === 2 && axis === 1;
    return isMatrix ? { loss, accuracy: accuracy(value, wanted) } : loss;
  };
}

/** Binary cross-entropy of logits with targets in [0, 1], of values or of an output. */
export function binaryCrossEntropyWithLogits(
  logits: Value,
  target: Value,
  options?: functional.BinaryOptions,
): Value;
export function binaryCrossEntropyWithLogits(
  names: BinaryClassified & functional.LossOptions,
): OnnxLoss;
export function binaryCrossEntropyWithLogits(
  first: Value | (BinaryClassified & functional.LossOptions),
  target?: Value,
  options?: functional.BinaryOptions,
): Value | OnnxLoss {
  if (isValue(first)) {
    return functional.binaryCrossEntropyWithLogits(first, target as Value, options);
  }
  checkOptions<object>("binaryCrossEntropyWithLogits", first, BINARY);
  const { logits, target: field, ...rest } = first;
  return (context) => {
    const value = context.output(logits);
    const wanted = context.field(field, value.shape, value.dtype);
    return functional.binaryCrossEntropyWithLogits(value, wanted, rest);
  };
}
