import assert from "node:assert/strict";
import { test } from "node:test";
import { planAccumulation } from "./accumulate.ts";

/** What the tree computes, written with brackets: leaves are their indices. */
function expression(count: number, lanes = 1): string {
  const { leaves, sums, buffers } = planAccumulation([{ slot: 0, count }], lanes);
  const held = new Array<string | undefined>(buffers).fill(undefined);
  for (const [leaf, buffer] of leaves.entries()) {
    assert.equal(held[buffer], undefined, `leaf ${leaf} overwrites a sum`);
    held[buffer] = String(leaf);
    for (const { from, into } of sums.filter(({ after }) => after === leaf)) {
      held[into] = `(${held[into]} ${held[from]})`;
      held[from] = undefined;
    }
  }
  assert.deepEqual(held.slice(1), new Array(buffers - 1).fill(undefined));
  return held[0] as string;
}

/** The tree by its definition: a node of level k holds the leaves [j·2ᵏ, (j+1)·2ᵏ). */
function canonical(first: number, size: number, count: number): string | undefined {
  if (first >= count) return undefined;
  if (size === 1) return String(first);
  const left = canonical(first, size / 2, count);
  const right = canonical(first + size / 2, size / 2, count);
  return right === undefined ? left : `(${left} ${right})`;
}

test("micro-batches are summed in the canonical binary tree, in few buffers", () => {
  assert.equal(expression(1), "0");
  assert.equal(expression(6), "(((0 1) (2 3)) (4 5))");
  assert.equal(expression(7), "(((0 1) (2 3)) ((4 5) 6))");
  for (let count = 1; count <= 70; count++) {
    assert.equal(expression(count), canonical(0, 128, count));
    assert.ok(planAccumulation([{ slot: 0, count }], 1).buffers <= Math.ceil(Math.log2(count)) + 1);
    for (const lanes of [2, 3, 8]) {
      assert.equal(expression(count, lanes), canonical(0, 128, count), `${lanes} lanes`);
      assert.ok(
        planAccumulation([{ slot: 0, count }], lanes).buffers <=
          Math.ceil(Math.log2(count)) + lanes,
      );
    }
  }
});
