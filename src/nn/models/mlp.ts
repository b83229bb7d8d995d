/** A multi-layer perceptron for classification or regression. */
import type { Value } from "../../graph/index.ts";
import {
  checkOptions,
  choice,
  count,
  countOrShape,
  counts,
  type OptionKinds,
  rate,
  word,
} from "../../options.ts";
import type { Shape } from "../../tensor/index.ts";
import { defineModel } from "../define.ts";
import { fanIn, glorotUniform, heNormal } from "../initializers.ts";
import { ACTIVATIONS, type Activation, activate } from "../layers/activation.ts";
import { dropout as drop } from "../layers/dropout.ts";
import { linear } from "../layers/linear.ts";
import type { ModelDefinition } from "../model.ts";
import { checkLayer } from "../options.ts";
import type { Scope } from "../scope.ts";
import { classify, flatten, regress } from "./task.ts";

export interface MlpOptions {
  /** The shape of one sample without the batch: 10, or [1, 28, 28]. It is flattened. */
  readonly inputs: number | Shape;
  /** The widths of the hidden layers. */
  readonly hidden: readonly number[];
  /** The number of classes or, with `task: "regression"`, of predicted numbers. */
  readonly outputs: number;
  /** Default: `classification`. */
  readonly task?: "classification" | "regression";
  /** Default: `relu`. */
  readonly activation?: Activation;
  /** The dropout rate after each hidden layer. Default: 0. */
  readonly dropout?: number;
  /** The name of the batch field. Default: `image` if a sample has three dims, otherwise `x`. */
  readonly field?: string;
}

type PerceptronOptions = Pick<MlpOptions, "activation" | "dropout">;

const PERCEPTRON_OPTIONS: OptionKinds<PerceptronOptions> = {
  activation: choice(...ACTIVATIONS).optional(),
  dropout: rate.optional(),
};

/** The schemas of the options of mlp. */
const MLP_OPTIONS: OptionKinds<MlpOptions> = {
  inputs: countOrShape,
  hidden: counts,
  outputs: count,
  task: choice("classification", "regression").optional(),
  ...PERCEPTRON_OPTIONS,
  field: word.optional(),
};

/**
 * Batch fields: `image` or `x` (batch, …inputs), and `label` int32 (batch), or `y` (batch, outputs)
 * for regression. Outputs: `loss`, and `logits` and `accuracy`, or `prediction`.
 */
export function mlp(options: MlpOptions): ModelDefinition {
  checkOptions("mlp", options, MLP_OPTIONS);
  const { hidden, outputs, task = "classification", activation = "relu", dropout = 0 } = options;
  const shape = typeof options.inputs === "number" ? [options.inputs] : options.inputs;
  const { field = shape.length === 3 ? "image" : "x" } = options;
  return defineModel("mlp", (m) => {
    const x = flatten(m.input(field, [m.batch, ...shape]));
    const result = perceptron(m.child("layers"), x, [...hidden, outputs], {
      activation,
      dropout,
    });
    return task === "classification" ? classify(m, result) : regress(m, result);
  });
}

/**
 * Linear layers of the given widths, named `0`, `1`, …, with an activation after each but the last.
 */
export function perceptron(
  scope: Scope,
  x: Value,
  widths: readonly number[],
  options: PerceptronOptions = {},
): Value {
  checkLayer(scope, "perceptron", options, PERCEPTRON_OPTIONS);
  const { activation = "relu", dropout: rate = 0 } = options;
  let value = x;
  for (const [index, outputs] of widths.entries()) {
    const layer = scope.child(index);
    const inputs = value.shape.at(-1) as number;
    const isLast = index === widths.length - 1;
    const gain = activation === "tanh" ? glorotUniform(inputs, outputs) : heNormal(inputs);
    value = linear(layer, value, { outputs, initializer: isLast ? fanIn(inputs) : gain });
    if (isLast) break;
    const linearOut = value;
    value = layer.within(() => drop(layer, activate(linearOut, activation), rate));
  }
  return value;
}
