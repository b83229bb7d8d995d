/** Whole models in tests: initial values and batches from a seed, on the reference interpreter. */
import assert from "node:assert/strict";
import { differentiate } from "../../src/autodiff/index.ts";
import type { Graph } from "../../src/graph/index.ts";
import type { Initializer, Model, ModelDefinition } from "../../src/nn/index.ts";
import { extendGraph } from "../../src/ops/index.ts";
import { interpret } from "../../src/reference/index.ts";
import {
  elementCount,
  isFloat,
  type Tensor,
  type TensorType,
  tensorFrom,
  toNumbers,
} from "../../src/tensor/index.ts";
import { randomNumbers, randomSource } from "./random.ts";

export type Tensors = Record<string, Tensor>;

/** Returns values for parameters and states from their initializers. */
export function drawWeights(model: Model, seed = 1): Tensors {
  const all = [...model.parameters, ...model.states];
  return Object.fromEntries(
    all.map(({ name, type, initializer }, index) => [
      name,
      drawTensor(type, initializer, seed * 1000 + index),
    ]),
  );
}

function drawTensor(type: TensorType, initializer: Initializer, seed: number): Tensor {
  const count = elementCount(type.shape);
  const of = (numbers: number[]): Tensor => tensorFrom(type.dtype, type.shape, numbers);
  const constant = (value: number): Tensor => of(new Array<number>(count).fill(value));
  switch (initializer.kind) {
    case "tensor":
      return initializer.tensor;
    case "zeros":
      return constant(0);
    case "ones":
      return constant(1);
    case "constant":
      return constant(initializer.value);
    case "uniform":
      return of(randomNumbers(seed, count, [initializer.low, initializer.high]));
    case "normal": {
      const next = randomSource(seed);
      const deviation = initializer.standardDeviation;
      const draw = (): number =>
        Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
      return of(Array.from({ length: count }, () => (initializer.mean ?? 0) + deviation * draw()));
    }
  }
}

/** Returns floats in [-1, 1] and integers in [0, limit) for each field of the batch. */
export function drawBatch(model: Model, limits: Record<string, number> = {}, seed = 7): Tensors {
  const names = [...model.batch, ...(model.randomKey === undefined ? [] : [model.randomKey])];
  return Object.fromEntries(
    names.map((name, index) => {
      const type = model.graph.types.get(name) as TensorType;
      const count = elementCount(type.shape);
      const limit = limits[name] ?? 2;
      const numbers = isFloat(type.dtype)
        ? randomNumbers(seed + index, count)
        : randomNumbers(seed + index, count, [0, limit]).map(Math.floor);
      return [name, tensorFrom(type.dtype, type.shape, numbers)];
    }),
  );
}

/** Returns the graph with only these outputs. */
export function sliceTo(graph: Graph, outputs: readonly string[]): Graph {
  const builder = extendGraph(graph);
  return builder.build(outputs.map((name) => builder.value(name)));
}

/** Returns the loss, and the gradients by parameter name. */
export function lossAndGradients(
  model: Model,
  inputs: Tensors,
): { loss: number; gradients: Tensors } {
  const names = model.parameters.map(({ name }) => name);
  const { graph, gradients } = differentiate(sliceTo(model.graph, [model.loss]), model.loss, names);
  const results = interpret(graph, inputs);
  return {
    loss: toNumbers(results[model.loss] as Tensor)[0] as number,
    gradients: Object.fromEntries(
      names.map((name) => [name, results[gradients.get(name) as string] as Tensor]),
    ),
  };
}

export interface ModelCheck {
  readonly batch?: number;
  readonly limits?: Record<string, number>;
  /** The number of elements of each parameter that are moved. Default: 3. */
  readonly probes?: number;
  readonly tolerance?: number;
}

/**
 * Checks the gradient of a whole model in float64 against central differences. Weights are moved
 * away from their initial values, so that zeros and ones count too.
 */
export function checkModelGradients(definition: ModelDefinition, check: ModelCheck = {}): void {
  const { batch = 2, limits = {}, probes = 3, tolerance = 1e-6 } = check;
  const model = definition.build({ batch, mode: "train", dtype: "float64" });
  const weights = drawWeights(model);
  for (const [index, { name, type }] of model.parameters.entries()) {
    const moves = randomNumbers(500 + index, elementCount(type.shape), [-0.2, 0.2]);
    const start = toNumbers(weights[name] as Tensor);
    weights[name] = tensorFrom(
      "float64",
      type.shape,
      moves.map((m, i) => m + (start[i] as number)),
    );
  }
  const inputs = { ...weights, ...drawBatch(model, limits) };
  const { gradients } = lossAndGradients(model, inputs);
  const forward = sliceTo(model.graph, [model.loss]);
  const lossWith = (name: string, at: number, delta: number): number => {
    const tensor = inputs[name] as Tensor;
    const values = toNumbers(tensor);
    values[at] = (values[at] as number) + delta;
    const moved = { ...inputs, [name]: tensorFrom("float64", tensor.shape, values) };
    return toNumbers(interpret(forward, moved)[model.loss] as Tensor)[0] as number;
  };
  const step = 1e-5;
  for (const { name, type } of model.parameters) {
    const rule = toNumbers(gradients[name] as Tensor);
    const count = elementCount(type.shape);
    for (let probe = 0; probe < Math.min(probes, count); probe++) {
      const at = Math.floor((probe * count) / Math.min(probes, count));
      const numeric = (lossWith(name, at, step) - lossWith(name, at, -step)) / (2 * step);
      const got = rule[at] as number;
      assert.ok(
        Math.abs(numeric - got) <= tolerance * Math.max(1, Math.abs(numeric)),
        `${model.name}: gradient of "${name}"[${at}]: rule ${got}, differences ${numeric}`,
      );
    }
  }
}
