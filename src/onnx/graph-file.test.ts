/**
 * Graphs of all our models are the same after writing and reading, and what does not fit is
 * refused.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { add } from "../functional/index.ts";
import type { Graph } from "../graph/index.ts";
import {
  bert,
  convnet,
  dlrm,
  gpt,
  type ModelDefinition,
  matrixFactorization,
  mlp,
  pinn,
  resnet,
} from "../nn/index.ts";
import { newBuilder } from "../ops/index.ts";
import { type Tensor, tensorFrom } from "../tensor/index.ts";
import { decodeGraph, encodeGraph } from "./graph-file.ts";

function roundTrip(graph: Graph): Graph {
  const shared: Uint8Array[] = [];
  const placeOf = ({ bytes }: Tensor) => ({ file: "values", offset: shared.push(bytes) - 1 });
  const bytes = encodeGraph(graph, placeOf);
  return decodeGraph(bytes, {
    name: "graph",
    shared: ({ offset }) => shared[offset] as Uint8Array,
  });
}

/** Converts a graph to plain values, in the order of each part. */
function plain(graph: Graph): unknown {
  const tensors = (value: unknown): unknown =>
    value instanceof Uint8Array
      ? Buffer.from(value).toString("hex")
      : value instanceof Map
        ? [...value].map(tensors)
        : Array.isArray(value)
          ? value.map(tensors)
          : typeof value === "object" && value !== null
            ? Object.entries(value).map(tensors)
            : value;
  return tensors(graph);
}

const models: readonly ModelDefinition[] = [
  gpt({ layers: 1, width: 16, heads: 2, context: 8, dropout: 0.1 }),
  gpt({ layers: 1, width: 16, heads: 4, kvHeads: 2, context: 8, positions: "rotary" }),
  bert({ layers: 1, width: 16, heads: 2, context: 8, vocabulary: 30 }),
  mlp({ inputs: [3], hidden: [4], outputs: 2 }),
  convnet({ image: [1, 12, 12], classes: 3 }),
  resnet({ image: [1, 8, 8], classes: 3, blocks: [1], channels: [4], stem: "small" }),
  dlrm({ dense: 3, categories: [5, 7], width: 4, bottom: [8], top: [8] }),
  matrixFactorization({ users: 5, items: 4, width: 3 }),
  pinn({ residual: ({ u, ddu }) => add(u, ddu), start: { value: 1, slope: 0 }, hidden: [8] }),
];

for (const model of models) {
  for (const mode of ["train", "eval"] as const) {
    test(`${model.name}, to ${mode}: the graph is the same after writing and reading`, () => {
      const { graph } = model.build({ batch: 3, mode });
      assert.deepEqual(plain(roundTrip(graph)), plain(graph));
    });
  }
}

test("floats of attributes keep all their bits, also if ONNX has fewer", () => {
  for (const epsilon of [1e-5, 0.1, 1 / 3, Number.POSITIVE_INFINITY, -0]) {
    const builder = newBuilder("floats");
    const x = builder.input("x", { dtype: "float32", shape: [2, 3] });
    const graph = builder.build([builder.one("LeakyRelu", [x], { alpha: epsilon })]);
    const read = roundTrip(graph).nodes[0]?.attributes["alpha"]?.value;
    assert.ok(Object.is(read, epsilon), `${String(read)} and not ${epsilon}`);
  }
});

test("a node that reads a later value, an unknown operator and a wrong shape are refused", () => {
  const builder = newBuilder("faulty");
  const x = builder.input("x", { dtype: "float32", shape: [2, 3] });
  const weight = builder.namedConstant("weight", tensorFrom("float32", [3, 2], [1, 2, 3, 4, 5, 6]));
  const y = builder.one("MatMul", [x, weight]);
  const graph = builder.build([builder.one("Relu", [y])]);
  const [first, second] = graph.nodes;
  assert.ok(first !== undefined && second !== undefined);
  const short = tensorFrom("float32", [2, 2], [1, 2, 3, 4]);
  const cases: readonly [Graph, string][] = [
    [{ ...graph, nodes: [second, first] }, "ONNX_PARSE"],
    [{ ...graph, nodes: [{ ...first, op: "Nothing" }, second] }, "UNKNOWN_OPERATOR"],
    [{ ...graph, constants: new Map([["weight", short]]) }, "SHAPE_MISMATCH"],
    [{ ...graph, nodes: [first, { ...second, outputs: ["x"] }] }, "INVALID_GRAPH"],
  ];
  for (const [faulty, code] of cases) {
    assert.throws(
      () => roundTrip(faulty),
      (error) => {
        assert.ok(error instanceof LockstepError, String(error));
        assert.equal(error.code, code);
        return true;
      },
    );
  }
});
