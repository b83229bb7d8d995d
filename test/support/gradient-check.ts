/**
 * Checks gradient rules against central finite differences in float64, on the reference
 * interpreter. The function checked is Σ seed·output for random seeds, so that every output element
 * counts.
 */
import assert from "node:assert/strict";
import { backward } from "../../src/autodiff/index.ts";
import { add, mul, reduceSum } from "../../src/functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../../src/graph/index.ts";
import { newBuilder } from "../../src/ops/index.ts";
import { interpret } from "../../src/reference/index.ts";
import {
  elementCount,
  isFloat,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../src/tensor/index.ts";
import { randomNumbers } from "./random.ts";

export interface GradientCase {
  /** Float64 inputs by name: their shapes, or tensors if the values matter (kinks, indices). */
  readonly inputs: Readonly<Record<string, Shape | Tensor>>;
  /** The function under test. Several outputs are allowed; integer and bool ones are ignored. */
  readonly build: (
    values: Readonly<Record<string, Value>>,
    builder: GraphBuilder,
  ) => Value | Value[];
  /** The range of random inputs. It must avoid kinks and poles. Default: [-1, 1]. */
  readonly range?: readonly [number, number];
  readonly seed?: number;
  /** The relative tolerance. Default: 1e-6. */
  readonly tolerance?: number;
  /** Whether the gradient of the gradient is checked too (contracted with random vectors). */
  readonly second?: boolean;
}

/** Fails if the rule and finite differences differ, with input, index, and both numbers. */
export function checkGradient(gradientCase: GradientCase): void {
  const tensors = drawInputs(gradientCase);
  const loss = (builder: GraphBuilder, values: Record<string, Value>) =>
    contract(gradientCase.build(values, builder), (gradientCase.seed ?? 1) + 1000);
  checkAgainstDifferences(tensors, loss, gradientCase.tolerance ?? 1e-6);
  if (gradientCase.second === true) {
    const gradientNorm = (builder: GraphBuilder, values: Record<string, Value>) => {
      const sources = Object.values(values).filter((value) => isFloat(value.dtype));
      const first = backward([loss(builder, values)], sources).filter((g) => g !== undefined);
      return contract(first, (gradientCase.seed ?? 1) + 2000);
    };
    checkAgainstDifferences(tensors, gradientNorm, (gradientCase.tolerance ?? 1e-6) * 10);
  }
}

function checkAgainstDifferences(
  tensors: Record<string, Tensor>,
  loss: (builder: GraphBuilder, values: Record<string, Value>) => Value,
  tolerance: number,
): void {
  const { graph, wrt } = gradientGraph(tensors, loss);
  const results = interpret(graph, tensors);
  const forward = forwardGraph(tensors, loss);
  const lossAt = (inputs: Record<string, Tensor>) =>
    toNumbers(interpret(forward, inputs)[forward.outputs[0] as string] as Tensor)[0] as number;
  for (const [index, name] of wrt.entries()) {
    const tensor = tensors[name] as Tensor;
    const analytic = toNumbers(results[graph.outputs[index + 1] as string] as Tensor);
    const values = toNumbers(tensor);
    for (const at of probes(values.length)) {
      const step = 1e-5;
      const moved = (delta: number) =>
        tensorFrom(
          "float64",
          tensor.shape,
          values.map((value, i) => (i === at ? value + delta : value)),
        );
      const numeric =
        (lossAt({ ...tensors, [name]: moved(step) }) -
          lossAt({ ...tensors, [name]: moved(-step) })) /
        (2 * step);
      const rule = analytic[at] as number;
      const scale = Math.max(1, Math.abs(numeric), Math.abs(rule));
      assert.ok(
        Math.abs(numeric - rule) <= tolerance * scale,
        `gradient of "${name}"[${at}]: rule ${rule}, finite differences ${numeric}`,
      );
    }
  }
}

function gradientGraph(
  tensors: Record<string, Tensor>,
  loss: (builder: GraphBuilder, values: Record<string, Value>) => Value,
): { graph: Graph; wrt: string[] } {
  const builder = newBuilder("check");
  const values = declare(builder, tensors);
  const result = loss(builder, values);
  const wrt = Object.keys(values).filter((name) => isFloat((values[name] as Value).dtype));
  const gradients = backward(
    [result],
    wrt.map((name) => values[name] as Value),
  );
  const reached = wrt.filter((_, index) => gradients[index] !== undefined);
  const present = gradients.filter((gradient) => gradient !== undefined);
  // A gradient may be the seed or an input itself, but outputs must be values of their own.
  const own = [result, ...present].map((value) => mul(value, 1));
  return { graph: builder.build(own), wrt: reached };
}

function forwardGraph(
  tensors: Record<string, Tensor>,
  loss: (builder: GraphBuilder, values: Record<string, Value>) => Value,
): Graph {
  const builder = newBuilder("forward");
  return builder.build([loss(builder, declare(builder, tensors))]);
}

function declare(builder: GraphBuilder, tensors: Record<string, Tensor>): Record<string, Value> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape }]) => [
      name,
      builder.input(name, { dtype, shape }),
    ]),
  );
}

function drawInputs({ inputs, range = [-1, 1], seed = 1 }: GradientCase): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, given], index) => {
      if ("bytes" in given) return [name, given];
      const numbers = randomNumbers(seed + 17 * index, elementCount(given), range);
      return [name, tensorFrom("float64", given, numbers)];
    }),
  );
}

/**
 * Returns the sum over outputs of a random vector times the output: a scalar in which every element
 * counts.
 */
function contract(outputs: Value | Value[], seed: number): Value {
  const list = (Array.isArray(outputs) ? outputs : [outputs]).filter((o) => isFloat(o.dtype));
  const terms = list.map((output, index) => {
    const numbers = randomNumbers(seed + index, elementCount(output.shape), [0.5, 1.5]);
    const weights = output.builder.constant(tensorFrom(output.dtype, output.shape, numbers));
    return reduceSum(mul(output, weights), { keepdims: false });
  });
  return terms.reduce((left, right) => add(left, right));
}

/** Returns the elements that are checked: all of a small tensor, 24 spread ones of a large one. */
function probes(count: number): number[] {
  if (count <= 24) return Array.from({ length: count }, (_, i) => i);
  return Array.from({ length: 24 }, (_, i) => Math.floor((i * count) / 24));
}
