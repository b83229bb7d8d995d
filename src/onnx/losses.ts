/**
 * Losses on a model from a file: its outputs are given by name, and so are the fields of the batch that they are
 * compared with (`labels`, `target`), which become inputs of the graph.
 */
import * as losses from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { type DType, normalizeDim, type Shape } from "../tensor/index.ts";

/** What a loss on an imported model sees. */
export interface OnnxLossContext {
  /** Samples of one run. */
  readonly batch: number;
  readonly mode: "train" | "eval";
  /** An output of the model, or any value inside of it, by its name in the file. Throws INVALID_OPTION. */
  output(name: string): Value;
  /** A field of the batch: an input of the model with this name, or a new one of this type. */
  field(name: string, shape: Shape, dtype: DType): Value;
}

/** A function that builds a scalar, or the name of an output that is one. */
export type OnnxLoss = string | ((context: OnnxLossContext) => Value);

/** The name of an output and of the field it is compared with. */
export interface Compared {
  /** Output of the model. */
  readonly prediction: string;
  /** Field of the batch, of the same shape. */
  readonly target: string;
}

export interface Classified {
  /** Output of the model: scores before softmax, classes in dim `axis` (the last unless told). */
  readonly logits: string;
  /** Field of the batch: int32, the shape of the logits without the dim of classes. */
  readonly labels: string;
}

type Loss<O> = (a: Value, b: Value, options?: O) => Value;

function compared<O extends object>(loss: Loss<O>) {
  return ({ prediction, target, ...options }: Compared & O): OnnxLoss =>
    (context) => {
      const value = context.output(prediction);
      const wanted = context.field(target, value.shape, value.dtype);
      return loss(value, wanted, options as unknown as O);
    };
}

/** Cross-entropy of an output with labels: `crossEntropy({ logits: "output", labels: "labels" })`. */
export function crossEntropy(options: Classified & losses.CrossEntropyOptions): OnnxLoss {
  const { logits, labels, ...rest } = options;
  return (context) => {
    const value = context.output(logits);
    const axis = normalizeDim(rest.axis ?? -1, value.shape.length);
    const shape = value.shape.filter((_, dim) => dim !== axis);
    return losses.crossEntropy(value, context.field(labels, shape, "int32"), rest);
  };
}

/** Mean squared error of an output. */
export const mse = compared<losses.LossOptions>(losses.mse);

/** Mean absolute error of an output. */
export const l1 = compared<losses.LossOptions>(losses.l1);

/** Huber's loss of an output. */
export const huber = compared<losses.LossOptions & { readonly delta?: number }>(losses.huber);

/** Binary cross-entropy of an output of logits with targets in [0, 1]. */
export function binaryCrossEntropyWithLogits(
  options: { readonly logits: string; readonly target: string } & losses.LossOptions,
): OnnxLoss {
  const { logits, target, ...rest } = options;
  return (context) => {
    const value = context.output(logits);
    const wanted = context.field(target, value.shape, value.dtype);
    return losses.binaryCrossEntropyWithLogits(value, wanted, rest);
  };
}
