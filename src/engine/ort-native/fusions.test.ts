/**
 * ONNX Runtime replaces nodes by one that rounds otherwise where it sees that nobody else reads what
 * is between them. A pass that is cut, or in which blocks are computed again, would then have other
 * bits than the whole. So what a graph computes must not depend on what else is read of it.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { randomNumbers } from "../../../test/support/random.ts";
import {
  add,
  div,
  erf,
  gelu,
  layerNormalization,
  matmul,
  mul,
  pow,
  quickGelu,
  reciprocal,
  reduceMean,
  relu,
  sigmoid,
  softmax,
  sqrt,
  sub,
  swapLast,
  tanh,
} from "../../functional/index.ts";
import { type Graph, typeOf, type Value } from "../../graph/index.ts";
import { extendGraph, newBuilder } from "../../ops/index.ts";
import { elementCount, tensorFrom } from "../../tensor/index.ts";
import { evaluate } from "../evaluate.ts";
import { createOrtEngine } from "./index.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const [BATCH, LENGTH, WIDTH] = [2, 16, 32];
const INPUTS = {
  x: [BATCH, LENGTH, WIDTH],
  skip: [BATCH, LENGTH, WIDTH],
  other: [BATCH, LENGTH, WIDTH],
  weight: [WIDTH, WIDTH],
  bias: [WIDTH],
  scale: [WIDTH],
  mask: [1, 1, LENGTH],
} as const;

type Given = Readonly<Record<keyof typeof INPUTS, Value>>;

function deviations(x: Value): { readonly apart: Value; readonly variance: Value } {
  const apart = sub(x, reduceMean(x, { axes: [2] }));
  return { apart, variance: reduceMean(pow(apart, 2), { axes: [2] }) };
}

/** As exporters write them, and as layers do. */
const PATTERNS: Readonly<Record<string, (given: Given) => Value>> = {
  "GELU by erf": ({ x }) => mul(mul(x, add(erf(div(x, Math.SQRT2)), 1)), 0.5),
  "GELU by erf, half first": ({ x }) => mul(mul(x, 0.5), add(erf(div(x, Math.SQRT2)), 1)),
  "GELU of a product": ({ x, weight, bias }) => gelu(add(matmul(x, weight), bias)),
  "GELU of a sum": ({ x, bias }) => gelu(add(x, bias)),
  "GELU by tanh": ({ x }) =>
    mul(mul(x, 0.5), add(tanh(mul(add(x, mul(pow(x, 3), 0.044715)), Math.sqrt(2 / Math.PI))), 1)),
  "quick GELU": ({ x }) => mul(x, sigmoid(mul(x, 1.702))),
  "quick GELU of a layer": ({ x }) => quickGelu(x),
  SiLU: ({ x }) => mul(x, sigmoid(x)),
  "layer normalization written out": ({ x, scale, bias }) => {
    const { apart, variance } = deviations(x);
    return add(mul(div(apart, sqrt(add(variance, 1e-5))), scale), bias);
  },
  "RMS normalization written out": ({ x, scale }) => {
    const square = reduceMean(pow(x, 2), { axes: [2] });
    return mul(div(x, sqrt(add(square, 1e-5))), scale);
  },
  "RMS normalization by a reciprocal": ({ x, scale }) => {
    const square = reduceMean(pow(x, 2), { axes: [2] });
    return mul(mul(x, reciprocal(sqrt(add(square, 1e-5)))), scale);
  },
  "normalization of a sum": ({ x, skip, scale, bias }) =>
    layerNormalization(add(x, skip), scale, bias),
  "normalization of three": ({ x, skip, other, scale, bias }) =>
    layerNormalization(add(add(x, skip), other), scale, bias),
  "normalization of a product and a sum": ({ x, skip, weight, scale, bias }) =>
    layerNormalization(add(add(matmul(x, weight), bias), skip), scale, bias),
  "softmax behind a mask": ({ x, skip, mask }) => softmax(add(matmul(x, swapLast(skip)), mask)),
  "softmax of scaled products": ({ x, skip }) => softmax(mul(matmul(x, swapLast(skip)), 0.3)),
  "scaled products": ({ x, weight }) => matmul(mul(x, 0.3), div(weight, 7)),
  "a product and ReLU": ({ x, weight, bias }) => relu(add(matmul(x, weight), bias)),
  "a product and tanh": ({ x, weight, bias }) => tanh(add(matmul(x, weight), bias)),
};

function graphOf(pattern: (given: Given) => Value): Graph {
  const builder = newBuilder("pattern");
  const given = Object.fromEntries(
    Object.entries(INPUTS).map(([name, shape]) => [
      name,
      builder.input(name, { dtype: "float32", shape }),
    ]),
  ) as Given;
  return builder.build([pattern(given)]);
}

/** The same nodes, with these outputs. */
function asking(graph: Graph, names: readonly string[]): Graph {
  const builder = extendGraph(graph);
  return builder.build(names.map((name) => builder.value(name)));
}

for (const [name, pattern] of Object.entries(PATTERNS)) {
  test(`${name} has the same bits whatever else is read`, async () => {
    const alone = graphOf(pattern);
    const [output] = alone.outputs as [string];
    const between = alone.nodes.flatMap(({ outputs }) => outputs);
    const all = engine.prepare(asking(alone, between));
    const inputs = Object.fromEntries(
      all.inputs.map((input, index) => {
        const { dtype, shape } = typeOf(all, input);
        return [input, tensorFrom(dtype, shape, randomNumbers(index, elementCount(shape)))];
      }),
    );
    const whole = await evaluate(engine, all, inputs);
    const own = await evaluate(engine, asking(all, [output]), inputs);
    assert.deepEqual(own[output]?.bytes, whole[output]?.bytes);
  });
}
