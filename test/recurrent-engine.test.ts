/**
 * LSTM, GRU and RNN on ONNX Runtime: its kernels are compared with the reference interpreter, our
 * gradients in float32 with those in float64, and the bits of one thread with those of two.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { differentiate } from "../src/autodiff/index.ts";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import { add, mul, reduceSum } from "../src/functional/index.ts";
import { type Graph, typeOf, type Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { interpret } from "../src/reference/index.ts";
import {
  type DType,
  elementCount,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../src/tensor/index.ts";
import { randomNumbers } from "./support/random.ts";
import { buildNode, type DrawnNode, drawNode } from "./support/recurrent.ts";
import { assertSameBitsAcrossThreads } from "./support/threads.ts";

let engine: Device;
before(() => {
  engine = createOrtEngine({ threads: 2 });
});
after(() => engine.close());

const ALL = [
  "Affine",
  "Elu",
  "HardSigmoid",
  "LeakyRelu",
  "Relu",
  "ScaledTanh",
  "Sigmoid",
  "Softplus",
  "Softsign",
  "Tanh",
  "ThresholdedRelu",
];

/** Returns the node's outputs and a loss in which each of their elements counts. */
function graphOf(node: DrawnNode, dtype: DType = "float32"): Graph {
  const builder = newBuilder(node.op);
  const values: Record<string, Value> = {};
  for (const [name, shape] of Object.entries(node.shapes)) {
    values[name] = builder.input(name, { dtype, shape });
  }
  if (node.lengths !== undefined) {
    values["lengths"] = builder.input("lengths", { dtype: "int32", shape: [node.lengths.length] });
  }
  const outputs = buildNode(node, values);
  const terms = outputs.map((output, index) => {
    const numbers = randomNumbers(index + 5, elementCount(output.shape), [0.5, 1.5]);
    const weights = builder.constant(tensorFrom(dtype, output.shape, numbers));
    return reduceSum(mul(output, weights), { keepdims: false });
  });
  const loss = terms.reduce((a, b) => add(a, b));
  return builder.build([loss, ...outputs]);
}

function feedsOf(node: DrawnNode, dtype: DType = "float32"): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const [index, [name, shape]] of Object.entries(node.shapes).entries()) {
    const numbers = randomNumbers(31 * index + 1, elementCount(shape), [-1, 1]);
    feeds[name] = tensorFrom(dtype, shape, numbers);
  }
  const { lengths } = node;
  if (lengths) feeds["lengths"] = tensorFrom("int32", [lengths.length], lengths);
  return feeds;
}

function gradientGraphOf(node: DrawnNode): Graph {
  const graph = graphOf(node);
  return differentiate(graph, graph.outputs[0] as string, Object.keys(node.shapes)).graph;
}

async function compare(graph: Graph, feeds: Record<string, Tensor>): Promise<void> {
  const got = await evaluate(engine, graph, feeds);
  const wanted = interpret(graph, feeds);
  for (const name of graph.outputs) {
    const expected = toNumbers(wanted[name] as Tensor);
    const scale = Math.max(1, ...expected.map(Math.abs));
    for (const [index, value] of toNumbers(got[name] as Tensor).entries()) {
      assert.ok(
        Math.abs(value - (expected[index] as number)) <= 2e-5 * scale,
        `${graph.name}: ${name}[${index}]: ONNX Runtime ${value}, reference ${expected[index]}`,
      );
    }
  }
}

test("the kernels of ONNX Runtime compute what the reference interpreter does", async () => {
  await fc.assert(
    fc.asyncProperty(drawNode(ALL), (node) => compare(graphOf(node), feedsOf(node))),
    { numRuns: 150, seed: 11, includeErrorInReport: true },
  );
});

test("ONNX Runtime computes the gradients of the graph that training runs", async () => {
  await fc.assert(
    fc.asyncProperty(drawNode(ALL), (node) => compare(gradientGraphOf(node), feedsOf(node))),
    { numRuns: 60, seed: 12, includeErrorInReport: true },
  );
});

test("recurrent nodes are unrolled in float64, for which ONNX Runtime has no kernel", async () => {
  await fc.assert(
    fc.asyncProperty(drawNode(["Sigmoid", "Tanh"]), (node) =>
      compare(graphOf(node, "float64"), feedsOf(node, "float64")),
    ),
    { numRuns: 15, seed: 14, includeErrorInReport: true },
  );
});

test("a differentiated graph has no recurrent node, and both passes share its steps", () => {
  fc.assert(
    fc.property(drawNode(), (node) => {
      const graph = gradientGraphOf(node);
      assert.ok(graph.nodes.every(({ op }) => op !== node.op));
      assert.equal(typeOf(graph, graph.outputs[0] as string).shape.length, 0);
    }),
    { numRuns: 10, seed: 13 },
  );
});

for (const op of ["LSTM", "GRU", "RNN"] as const) {
  test(`${op}: the same bits on one thread and on two, forward and backward`, async () => {
    const rows = { LSTM: 4, GRU: 3, RNN: 1 }[op] * 96;
    const node: DrawnNode = {
      op,
      batch: 24,
      lengths: Array.from({ length: 24 }, (_, i) => 1 + (i % 9)),
      attributes: { direction: "bidirectional", hidden_size: 96 },
      shapes: {
        x: [9, 24, 80],
        w: [2, rows, 80],
        r: [2, rows, 96],
        b: [2, 2 * rows],
        h: [2, 24, 96],
      },
    };
    for (const graph of [graphOf(node), gradientGraphOf(node)]) {
      await assertSameBitsAcrossThreads(graph, feedsOf(node), { engine, rounds: 6 });
    }
  });
}
