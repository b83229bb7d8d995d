import assert from "node:assert/strict";
import { test } from "node:test";
import { type Combination, planShares } from "./shares.ts";
import { accumulatorsOf, leafOf, planWaves } from "./waves.ts";

/** The tree as nested pairs of micro-batches. */
type Tree = number | readonly [Tree, Tree];

function treeOfWaves(microBatches: number, perWave: number): Tree {
  const held = new Map<number, Tree>();
  for (const { first, sums } of planWaves(microBatches, perWave)) {
    const resolve = (part: Combination): Tree => {
      if (typeof part !== "number") return [resolve(part[0]), resolve(part[1])];
      const leaf = leafOf(part);
      return "microBatch" in leaf ? first + leaf.microBatch : (held.get(leaf.accumulator) as Tree);
    };
    const made = sums.map(
      ({ accumulator, combination }) => [accumulator, resolve(combination)] as const,
    );
    for (const [accumulator, tree] of made) held.set(accumulator, tree);
  }
  return held.get(0) as Tree;
}

test("waves of any size give the one tree over all micro-batches", () => {
  for (let microBatches = 1; microBatches <= 33; microBatches++) {
    const ranges = Array.from({ length: microBatches }, (_, first) => ({ first, count: 1 }));
    const expected = planShares(ranges).combination;
    for (let perWave = 1; perWave <= microBatches + 1; perWave++) {
      const found = treeOfWaves(microBatches, perWave);
      assert.deepEqual(found, expected, `${microBatches} in waves of ${perWave}`);
    }
  }
});

test("few accumulators are enough, and no sum reads one that another has overwritten", () => {
  assert.equal(accumulatorsOf(planWaves(8, 4)), 1);
  assert.equal(accumulatorsOf(planWaves(8, 8)), 1);
  assert.ok(accumulatorsOf(planWaves(64, 1)) <= 7);
  for (const [microBatches, perWave] of [
    [7, 3],
    [13, 5],
    [29, 3],
    [31, 4],
  ] as const) {
    for (const { sums } of planWaves(microBatches, perWave)) {
      const written = new Set<number>();
      for (const { accumulator, combination } of sums) {
        const read = [combination].flat(9) as number[];
        assert.ok(read.every((leaf) => !written.has(leaf)));
        written.add(accumulator);
      }
    }
  }
});
