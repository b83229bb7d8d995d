import assert from "node:assert/strict";
import { test } from "node:test";
import { type Combination, planShares, type Range } from "./shares.ts";
import { planWaves } from "./waves.ts";

/** The tree as nested pairs of micro-batches. */
type Tree = number | readonly [Tree, Tree];

const whole = (count: number): Range[] => [{ first: 0, count }];

/** The sums of ranges; no sum may lose what another one still needs. */
function treesOfWaves(ranges: readonly Range[], perWave: number, isInPlace = false): Tree[] {
  const held = new Map<number, Tree>();
  const { waves, accumulators } = planWaves(ranges, { perWave, isInPlace });
  for (const { first, count, leaves, sums } of waves) {
    for (let index = 0; isInPlace && index < count; index++) {
      const leaf = leaves[index] as number;
      assert.ok(leaf < accumulators && !held.has(leaf), "a leaf overwrites no sum");
      held.set(leaf, first + index);
    }
    const read = new Set<number>();
    const resolve = (part: Combination): Tree => {
      if (typeof part !== "number") return [resolve(part[0]), resolve(part[1])];
      if (part < 0) return first - 1 - part;
      read.add(part);
      return held.get(part) as Tree;
    };
    const made = sums.map(
      ({ accumulator, combination }) => [accumulator, resolve(combination)] as const,
    );
    for (const accumulator of read) held.delete(accumulator);
    for (const [accumulator, tree] of made) {
      assert.ok(accumulator < accumulators && !held.has(accumulator), "no sum is overwritten");
      held.set(accumulator, tree);
    }
  }
  assert.equal(held.size, ranges.length);
  return ranges.map((_, range) => held.get(range) as Tree);
}

test("waves of any size give the one tree over all micro-batches", () => {
  for (let microBatches = 1; microBatches <= 33; microBatches++) {
    const ranges = Array.from({ length: microBatches }, (_, first) => ({ first, count: 1 }));
    const expected = planShares(ranges).combination;
    for (let perWave = 1; perWave <= microBatches + 1; perWave++) {
      for (const isInPlace of [false, true]) {
        const [found] = treesOfWaves(whole(microBatches), perWave, isInPlace);
        assert.deepEqual(found, expected, `${microBatches} in waves of ${perWave}`);
      }
    }
  }
});

test("few accumulators are enough, and no sum reads one that another has overwritten", () => {
  const accumulatorsOf = (count: number, perWave: number, isInPlace = false) =>
    planWaves(whole(count), { perWave, isInPlace }).accumulators;
  assert.equal(accumulatorsOf(8, 4), 1);
  assert.equal(accumulatorsOf(8, 8), 1);
  assert.ok(accumulatorsOf(64, 1) <= 7);
  for (let count = 1; count <= 70; count++) {
    assert.ok(accumulatorsOf(count, 1, true) <= Math.ceil(Math.log2(count)) + 1);
    for (const perWave of [2, 3, 8, 200]) {
      assert.ok(accumulatorsOf(count, perWave, true) <= Math.ceil(Math.log2(count)) + perWave);
    }
  }
  for (const [microBatches, perWave] of [
    [7, 3],
    [13, 5],
    [29, 3],
    [31, 4],
  ] as const) {
    const options = { perWave, isInPlace: false };
    for (const { sums } of planWaves(whole(microBatches), options).waves) {
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
        for (const isInPlace of [false, true]) {
          const trees = [0, 1].flatMap((rank) => {
            const own = contributions.filter((from) => from.rank === rank);
            return treesOfWaves(own, perWave, isInPlace);
          });
          const resolve = (part: Combination): Tree =>
            typeof part === "number" ? (trees[part] as Tree) : [resolve(part[0]), resolve(part[1])];
          assert.deepEqual(resolve(combination), planShares(single).combination);
        }
      }
    }
  }
});
