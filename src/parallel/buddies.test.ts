/** Who is whose buddy, for meshes over nodes; no process and no engine. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createMesh, evenTopology, groupOf, isWithinNode } from "../mesh/index.ts";
import { buddiesOf } from "./buddies.ts";

test("ranks of a node have their buddies on the next node, as evenly as can be", () => {
  const mesh = createMesh({ shard: 4 });
  assert.deepEqual(buddiesOf(evenTopology(4, 2), mesh, ["shard"]), [
    { of: 0, at: 2 },
    { of: 1, at: 3 },
    { of: 2, at: 0 },
    { of: 3, at: 1 },
  ]);
  // After a loss, nodes may be of different sizes.
  const uneven = { nodes: [[0, 1, 2], [3]] };
  assert.deepEqual(buddiesOf(uneven, mesh, ["shard"]), [
    { of: 0, at: 3 },
    { of: 1, at: 3 },
    { of: 2, at: 3 },
    { of: 3, at: 0 },
  ]);
});

test("what another node holds anyway has no buddy", () => {
  const hybrid = createMesh({ data: 2, shard: 2 });
  assert.deepEqual(buddiesOf(evenTopology(4, 2), hybrid, ["shard"]), []);
  assert.deepEqual(buddiesOf(evenTopology(4, 1), createMesh({ shard: 4 }), ["shard"]), []);
  // Ranks 0 and 2 hold the same, and are lost together; rank 3 holds what rank 1 does.
  const nodes = [[0, 1, 2], [3]];
  assert.deepEqual(buddiesOf({ nodes }, hybrid, ["shard"]), [{ of: 0, at: 3 }]);
});

/** Nodes of any sizes, with ranks in their order. */
const topologies = fc
  .array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 4 })
  .map((sizes) => {
    let next = 0;
    return sizes.map((size) => Array.from({ length: size }, () => next++));
  });

test("every part is on two nodes, and no rank has many more wards than another", () => {
  fc.assert(
    fc.property(topologies, fc.boolean(), (nodes, isHybrid) => {
      const size = nodes.flat().length;
      const data = isHybrid && size % 2 === 0 ? 2 : 1;
      const mesh = createMesh({ data, shard: size / data });
      const buddies = buddiesOf({ nodes }, mesh, ["shard"]);
      for (let rank = 0; rank < size; rank++) {
        const same = groupOf(mesh, ["data"], rank);
        const doubled = buddies.filter(({ of }) => same.includes(of)).map(({ at }) => at);
        assert.ok(!isWithinNode({ nodes }, [...same, ...doubled]), `the part of rank ${rank}`);
      }
      for (const [index, node] of nodes.entries()) {
        const before = nodes.at(index - 1) ?? [];
        for (const rank of node) {
          const wards = buddies.filter(({ at }) => at === rank).length;
          assert.ok(wards <= Math.ceil(before.length / node.length));
        }
      }
    }),
  );
});
