import assert from "node:assert/strict";
import { test } from "node:test";
import { randomNumbers } from "../../../test/support/random.ts";
import { backward } from "../../autodiff/index.ts";
import {
  add,
  gelu,
  gemm,
  layerNormalization,
  linear,
  matmul,
  mul,
  reduceSum,
  reshape,
  softmax,
} from "../../functional/index.ts";
import { type Graph, type GraphBuilder, type Value, validateGraph } from "../../graph/index.ts";
import { extendGraph, newBuilder } from "../../ops/index.ts";
import { interpret } from "../../reference/index.ts";
import { elementCount, tensorFrom } from "../../tensor/index.ts";
import { fuseTransposedProducts, transposeFirst } from "./fuse.ts";
import { regroup } from "./regroup.ts";

function graphOf(
  inputs: Readonly<Record<string, readonly number[]>>,
  build: (values: Readonly<Record<string, Value>>, builder: GraphBuilder) => readonly Value[],
): Graph {
  const builder = newBuilder("regrouped");
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, shape]) => [
      name,
      builder.input(name, { dtype: "float32", shape }),
    ]),
  );
  return builder.build([...build(values, builder)]);
}

function reshapes(graph: Graph): number {
  return graph.nodes.filter(({ op }) => op === "Reshape").length;
}

/** Checks that the graphs give the same numbers, and that inference finds the same types. */
function checkSame(graph: Graph, changed: Graph): void {
  validateGraph(changed);
  const inferred = extendGraph(changed).build(
    changed.outputs.map((name) => extendGraph(changed).value(name)),
  );
  for (const node of inferred.nodes) {
    for (const name of node.outputs) {
      assert.deepEqual(changed.types.get(name), inferred.types.get(name), name);
    }
  }
  const given = Object.fromEntries(
    graph.inputs.map((name, index) => {
      const { shape } = graph.types.get(name) ?? { shape: [] };
      const numbers = randomNumbers(index, elementCount(shape), [-1, 1]);
      return [name, tensorFrom("float32", shape, numbers)];
    }),
  );
  assert.deepEqual(interpret(changed, given), interpret(graph, given));
}

test("rows stay rows between products", () => {
  const graph = graphOf(
    { x: [2, 3, 4], w1: [4, 8], b1: [8], w2: [8, 4], scale: [4], bias: [4] },
    ({ x, w1, b1, w2, scale, bias }) => {
      const normal = layerNormalization(mul(x as Value, 2), scale as Value, bias);
      const wide = gelu(linear(normal, w1 as Value, b1));
      return [add(normal, linear(wide, w2 as Value)), softmax(wide)];
    },
  );
  const changed = regroup(graph);
  checkSame(graph, changed);
  // There is one for the rows, and one for each result.
  assert.equal(reshapes(changed), 3);
});

test("attention and its gradient need no other batch dims for their products", () => {
  const shape = [2, 3, 5, 4];
  const graph = graphOf({ q: shape, k: shape, v: shape, mask: [1, 1, 5, 5] }, (values) => {
    const [q, k, v, mask] = ["q", "k", "v", "mask"].map((name) => mul(values[name] as Value, 2));
    const scores = add(matmul(q as Value, k as Value, { transB: true }), mask as Value);
    const mixed = matmul(softmax(scores), v as Value);
    const loss = reduceSum(mul(mixed, mixed), { keepdims: false });
    const wrt = ["q", "k", "v"].map((name) => values[name] as Value);
    return [loss, ...(backward([loss], wrt) as Value[])];
  });
  assert.ok(reshapes(graph) > 8);
  const changed = regroup(fuseTransposedProducts(graph));
  checkSame(graph, changed);
  // The loss's own gradient is a number.
  assert.equal(reshapes(changed), 1);
});

test("a node whose result depends on its dims keeps them", () => {
  const graph = graphOf({ x: [6, 4], y: [2, 3, 1], z: [3, 4] }, ({ x, y, z }, builder) => {
    const grown = reshape(mul(x as Value, 2), [2, 3, 4]);
    const first = builder.one("Softmax", [grown], { axis: 1 });
    const second = add(mul(grown, y as Value), z as Value);
    return [first, second, reduceSum(grown, { axes: [0] }), reduceSum(grown, { axes: [-1, -2] })];
  });
  checkSame(graph, regroup(graph));
});

test("an input is read where the graph says, because an output may be written over it", () => {
  const graph = graphOf({ x: [2, 3] }, ({ x }) => {
    const view = reshape(x as Value, [6]);
    return [mul(x as Value, 2), mul(view, reshape(mul(view, 3), [6]))];
  });
  const changed = regroup(graph);
  checkSame(graph, changed);
  assert.equal(reshapes(changed), 1);
});

test("results keep their names and shapes", () => {
  const graph = graphOf({ x: [2, 3] }, ({ x }) => {
    const flat = reshape(mul(x as Value, 2), [6]);
    return [flat, reshape(flat, [3, 2]), reshape(mul(flat, 2), [2, 3])];
  });
  const changed = regroup(graph);
  checkSame(graph, changed);
  assert.deepEqual(changed.outputs, graph.outputs);
});

test("products absorb transposes, or are given a transposed operand", () => {
  const graph = graphOf({ x: [6, 2], y: [2, 6], dy: [6, 8], w: [8, 2] }, ({ x, y, dy, w }, b) => {
    const swap = (value: Value) => b.one("Transpose", [value], { perm: [1, 0] });
    return [
      gemm(x as Value, dy as Value, undefined, { transA: true }),
      gemm(swap(y as Value), swap(w as Value), undefined),
      gemm(swap(y as Value), dy as Value, undefined, { transA: true }),
    ];
  });
  const fused = fuseTransposedProducts(graph);
  checkSame(graph, fused);
  assert.equal(fused.nodes.length, 3);
  const changed = transposeFirst(fused);
  checkSame(graph, changed);
  const ops = changed.nodes.map(({ op }) => op);
  assert.deepEqual(ops, ["Transpose", "Gemm", "Gemm", "Gemm"]);
});
