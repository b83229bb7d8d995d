import assert from "node:assert/strict";
import { test } from "node:test";
import { differentiate } from "../../autodiff/index.ts";
import { reduceSum } from "../../functional/index.ts";
import { typeOf } from "../../graph/index.ts";
import { newBuilder } from "../index.ts";

function build(op: string, attributes: Record<string, string | number | number[]>) {
  const builder = newBuilder("test");
  const x = builder.input("x", { dtype: "float32", shape: [4, 6] });
  const y = builder.one(`lockstep::${op}`, [x], { axis: "data", ...attributes });
  return { graph: builder.build([y, reduceSum(y, { keepdims: false })]), shape: y.shape };
}

test("collectives know what each rank gets", () => {
  assert.deepEqual(build("AllReduce", {}).shape, [4, 6]);
  assert.deepEqual(build("AllGather", { size: 3, dim: 1 }).shape, [4, 18]);
  assert.deepEqual(build("ReduceScatter", { size: 2, dim: 0 }).shape, [2, 6]);
  assert.deepEqual(build("AllToAll", { size: 2, split: 0, concat: -1 }).shape, [2, 12]);
  assert.deepEqual(build("Broadcast", { size: 2, root: 1 }).shape, [4, 6]);
  assert.throws(() => build("ReduceScatter", { size: 4, dim: 1 }), /not a multiple of 4 ranks/);
  assert.throws(() => build("Broadcast", { size: 2, root: 2 }), /no rank 2/);
  assert.throws(() => build("AllReduce", { reduction: "mean" }), /none of sum, max, min/);
});

test("the gradient of a collective is the collective that brings gradients back", () => {
  const inverse: readonly [string, Record<string, number>, string[]][] = [
    ["AllReduce", {}, ["AllReduce"]],
    ["AllGather", { size: 3, dim: 1 }, ["ReduceScatter"]],
    ["ReduceScatter", { size: 2, dim: 0 }, ["AllGather"]],
    ["AllToAll", { size: 2, split: 0, concat: 1 }, ["AllToAll"]],
    ["Broadcast", { size: 2, root: 1 }, ["ReduceScatter"]],
  ];
  for (const [op, attributes, expected] of inverse) {
    const { graph } = build(op, attributes);
    const { graph: both, gradients } = differentiate(graph, graph.outputs[1] as string, ["x"]);
    const added = both.nodes.slice(graph.nodes.length).filter((node) => node.op.includes("::"));
    assert.deepEqual(
      added.map((node) => node.op),
      expected.map((name) => `lockstep::${name}`),
      op,
    );
    assert.deepEqual(typeOf(both, gradients.get("x") as string).shape, [4, 6], op);
  }
});

test("a sum over ranks carries several tensors, integers without a gradient among them", () => {
  const builder = newBuilder("test");
  const x = builder.input("x", { dtype: "float32", shape: [2] });
  const n = builder.input("n", { dtype: "int32", shape: [3] });
  const [sum, count] = builder.emit(
    "lockstep::AllReduce",
    [x, n],
    { axis: "data" },
    { outputs: 2 },
  );
  assert.deepEqual(count?.type, n.type);
  const loss = reduceSum(sum as typeof x, { keepdims: false });
  const { graph } = differentiate(builder.build([loss]), loss.name, ["x"]);
  assert.equal(graph.nodes.filter(({ op }) => op === "lockstep::AllReduce").length, 2);
});
