import assert from "node:assert/strict";
import { after, test } from "node:test";
import { differentiate } from "../../autodiff/index.ts";
import { div, matmul, mul, reduceSum, softmax, transpose } from "../../functional/index.ts";
import type { Graph } from "../../graph/index.ts";
import { newBuilder } from "../../ops/index.ts";
import { elementCount, type Tensor, tensorFrom } from "../../tensor/index.ts";
import { evaluate } from "../evaluate.ts";
import { fuseTransposedProducts } from "./fuse.ts";
import { createOrtEngine } from "./ort-engine.ts";
import { regroup } from "./regroup.ts";
import { fuseScales } from "./scales.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

/**
 * Returns attention scores and their gradients, with a factor that one product has on its input,
 * and another on its result.
 */
function attention(): Graph {
  const b = newBuilder("attention");
  const [q, k, v] = ["q", "k", "v"].map((name) =>
    b.input(name, { dtype: "float32", shape: [2, 3, 5, 8] }),
  ) as [ReturnType<typeof b.input>, ReturnType<typeof b.input>, ReturnType<typeof b.input>];
  const scores = matmul(mul(q, 0.353553), transpose(k, [0, 1, 3, 2]));
  const out = div(matmul(softmax(scores, -1), v), 3);
  const graph = b.build([reduceSum(mul(out, out), { keepdims: false })]);
  const { graph: gradient } = differentiate(graph, graph.outputs[0] as string, ["q", "k", "v"]);
  return regroup(fuseTransposedProducts(gradient));
}

function feedsOf(graph: Graph): Record<string, Tensor> {
  const entries = graph.inputs.map((name, at) => {
    const shape = graph.types.get(name)?.shape ?? [];
    const numbers = Array.from({ length: elementCount(shape) }, (_, i) => Math.sin(i * (at + 1)));
    return [name, tensorFrom("float32", shape, numbers)] as const;
  });
  return Object.fromEntries(entries);
}

test("factors are moved into products as ONNX Runtime's own optimizer moves them, with the same bits", async () => {
  const graph = attention();
  const fused = fuseScales(graph);
  const factors = fused.nodes.filter(({ attributes }) => "alpha" in attributes);
  assert.ok(factors.length >= 3, `${factors.length} products with a factor`);
  assert.ok(fused.nodes.length < graph.nodes.length);
  assert.deepEqual(fused.outputs, graph.outputs);
  const feeds = feedsOf(graph);
  const [expected, found] = [
    await evaluate(engine, graph, feeds),
    await evaluate(engine, fused, feeds),
  ];
  for (const name of graph.outputs)
    assert.deepEqual(found[name]?.bytes, expected[name]?.bytes, name);
});

test("a second pass changes nothing", () => {
  const once = fuseScales(attention());
  assert.equal(fuseScales(once), once);
});

test("a result that other nodes read too keeps the factor after it", () => {
  const b = newBuilder("shared");
  const x = b.input("x", { dtype: "float32", shape: [4, 4] });
  const y = matmul(x, x);
  const graph = b.build([mul(y, 2), reduceSum(y, { keepdims: false })]);
  assert.equal(fuseScales(graph), graph);
  const wide = newBuilder("float64");
  const z = wide.input("x", { dtype: "float64", shape: [4, 4] });
  const double = wide.build([mul(matmul(z, z), 2)]);
  assert.equal(fuseScales(double), double, "ONNX Runtime has no such kernel in float64");
});
