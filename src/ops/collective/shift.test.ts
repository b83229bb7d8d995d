import assert from "node:assert/strict";
import { test } from "node:test";
import { createMesh } from "../../mesh/index.ts";
import { interpretRanks } from "../../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { divisionsOf, newBuilder } from "../index.ts";

test("each rank gets what the one before it on the axis has, whatever other axes there are", () => {
  const builder = newBuilder("ring");
  const value = builder.input("value", { dtype: "float64", shape: [1] });
  const once = builder.one("lockstep::Shift", [value], { axis: "ring", ranks: 3 });
  const twice = builder.one("lockstep::Shift", [once], { axis: "ring", ranks: 3 });
  const graph = builder.build([once, twice]);
  const feeds = [0, 1, 2, 3, 4, 5].map((rank) => ({ value: tensorFrom("float64", [1], [rank]) }));
  const made = interpretRanks(graph, createMesh({ data: 2, ring: 3 }), feeds);
  const of = (name: string) => made.flatMap((own) => toNumbers(own[name] as Tensor));
  assert.deepEqual(of(once.name), [2, 0, 1, 5, 3, 4]);
  assert.deepEqual(of(twice.name), [1, 2, 0, 4, 5, 3]);
});

test("what goes round can be cut along every dim over another axis", () => {
  const builder = newBuilder("ring");
  const value = builder.input("value", { dtype: "float64", shape: [6, 12] });
  const attributes = { axis: "ring", ranks: 1 };
  const graph = builder.build([builder.one("lockstep::Shift", [value], attributes)]);
  const over = { axis: "other", ranks: 2, proportions: [[1]] };
  const [node] = graph.nodes;
  assert.ok(node !== undefined);
  const ways = divisionsOf(graph, node, over).map(({ inputs, outputs }) => [inputs, outputs]);
  assert.deepEqual(ways, [
    [[undefined], [undefined]],
    [[{ shard: 0 }], [{ shard: 0 }]],
    [[{ shard: 1 }], [{ shard: 1 }]],
    [["partial"], ["partial"]],
  ]);
});
