import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createMesh,
  evenTopology,
  formatPlacement,
  groupOf,
  isWithinNode,
  regularTopology,
} from "./index.ts";

test("a mesh has places and groups on each axis, and on several", () => {
  const mesh = createMesh({ data: 2, tensor: 3 });
  assert.equal(mesh.size, 6);
  assert.deepEqual(groupOf(mesh, ["data"], 4), [1, 4]);
  assert.deepEqual(groupOf(mesh, ["tensor"], 4), [3, 4, 5]);
  assert.deepEqual(groupOf(mesh, ["data", "tensor"], 4), [0, 1, 2, 3, 4, 5]);
  assert.throws(() => groupOf(mesh, ["pipeline"], 0), /no axis "pipeline"/);
  assert.throws(() => createMesh({ data: 1.5 }), /has size 1.5/);
});

test("nodes have equally many ranks in order, or else each rank counts as a node", () => {
  assert.deepEqual(evenTopology(4, 2).nodes, [
    [0, 1],
    [2, 3],
  ]);
  assert.throws(() => evenTopology(5, 2), /cannot be divided evenly/);
  assert.equal(isWithinNode(evenTopology(4, 2), [2, 3]), true);
  assert.equal(isWithinNode(evenTopology(4, 2), [1, 2]), false);
  assert.deepEqual(regularTopology({ nodes: [[0, 1], [2]] }).nodes, [[0], [1], [2]]);
  assert.deepEqual(
    regularTopology({
      nodes: [
        [0, 2],
        [1, 3],
      ],
    }).nodes,
    [[0], [1], [2], [3]],
  );
});

test("a placement is printed in one word", () => {
  assert.equal(formatPlacement({}), "replicated");
  assert.equal(
    formatPlacement({ "micro-batch": "partial", shard: { shard: "flat" } }),
    "partial(micro-batch) shard(shard, flat)",
  );
});
