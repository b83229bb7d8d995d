import assert from "node:assert/strict";
import { test } from "node:test";
import { type Combination, planShares, type Range } from "./shares.ts";
import { accumulatorsOf, leafOf, planWaves } from "./waves.ts";

/** The tree as nested pairs of micro-batches. */
type Tree = number | readonly [Tree, Tree];

const whole = (count: number): Range[] => [{ first: 0, count }];

function treeOfWaves(microBatches: number, perWave: number): Tree {
  return treesOfWaves(whole(microBatches), perWave)[0] as Tree;
}

function treesOfWaves(ranges: readonly Range[], perWave: number): Tree[] {
  const held = new Map<number, Tree>();
  const { waves, totals } = planWaves(ranges, perWave);
  assert.equal(totals[0], 0);
  for (const { first, sums } of waves) {
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
  return totals.map((accumulator) => held.get(accumulator) as Tree);
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
  assert.equal(accumulatorsOf(planWaves(whole(8), 4).waves), 1);
  assert.equal(accumulatorsOf(planWaves(whole(8), 8).waves), 1);
  assert.ok(accumulatorsOf(planWaves(whole(64), 1).waves) <= 7);
  for (const [microBatches, perWave] of [
    [7, 3],
    [13, 5],
    [29, 3],
    [31, 4],
  ] as const) {
    for (const { sums } of planWaves(whole(microBatches), perWave).waves) {
      for (const { accumulator } of sums) {
        const others = sums.filter((sum) => sum.accumulator !== accumulator);
        const read = others.flatMap(({ combination }) => [combination].flat(9) as number[]);
        assert.ok(!read.includes(accumulator), `${microBatches} in waves of ${perWave}`);
      }
      assert.equal(new Set(sums.map(({ accumulator }) => accumulator)).size, sums.length);
    }
  }
});

test("each range is summed by itself, as the tree over all micro-batches sums it", () => {
  for (let microBatches = 2; microBatches <= 17; microBatches++) {
    for (let cut = 1; cut < microBatches; cut++) {
      const ranges = [
        { first: 0, count: cut },
        { first: cut, count: microBatches - cut },
      ];
      const { contributions, combination } = planShares(ranges);
      const single = Array.from({ length: microBatches }, (_, first) => ({ first, count: 1 }));
      for (const perWave of [1, 2, 3, 5]) {
        const trees = [0, 1].flatMap((rank) => {
          const own = contributions.filter((from) => from.rank === rank);
          return treesOfWaves(own, perWave);
        });
        const resolve = (part: Combination): Tree =>
          typeof part === "number" ? (trees[part] as Tree) : [resolve(part[0]), resolve(part[1])];
        assert.deepEqual(resolve(combination), planShares(single).combination);
      }
    }
  }
});
