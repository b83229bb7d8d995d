import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decideShares } from "./decide-shares.ts";
import { evenRanges } from "./shares.ts";

function countsOf(speeds: readonly number[], microBatches: number): number[] {
  const { ranges } = decideShares(speeds, microBatches, evenRanges(microBatches, speeds.length));
  return ranges.map(({ count }) => count);
}

test("equal workers keep what they have, and so do those within ten percent", () => {
  const current = evenRanges(8, 2);
  for (const speeds of [
    [1, 1],
    [1, 0.92],
    [7.1, 7.7],
  ]) {
    assert.deepEqual(decideShares(speeds, 8, current), { ranges: current, reason: undefined });
  }
});

test("a worker of half the speed gets half as much", () => {
  assert.deepEqual(countsOf([2, 1], 12), [8, 4]);
  assert.deepEqual(countsOf([1, 2, 1], 8), [2, 4, 2]);
  assert.deepEqual(countsOf([1, 0.5], 4), [3, 1]);
});

test("a worker that has recovered gets its part back", () => {
  const { ranges, reason } = decideShares([1, 1], 8, [
    { first: 0, count: 6 },
    { first: 6, count: 2 },
  ]);
  assert.deepEqual(ranges, evenRanges(8, 2));
  assert.match(reason ?? "", /1\.00 : 1\.00.*4 \+ 4.*33%/);
});

test("speeds that say nothing change nothing", () => {
  const current = evenRanges(8, 2);
  for (const speeds of [
    [0, 1],
    [Number.NaN, 1],
    [Number.POSITIVE_INFINITY, 1],
  ]) {
    assert.equal(decideShares(speeds, 8, current).ranges, current);
  }
});

test("no other counts end a step earlier", () => {
  const speed = fc.double({ min: 0.1, max: 10, noNaN: true });
  const property = (speeds: [number, number, number], microBatches: number) => {
    const time = (counts: readonly number[]) =>
      Math.max(...counts.map((count, rank) => count / (speeds[rank] as number)));
    const counts = countsOf(speeds, microBatches);
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      microBatches,
    );
    let best = Number.POSITIVE_INFINITY;
    for (let a = 1; a <= microBatches - 2; a++) {
      for (let b = 1; a + b <= microBatches - 1; b++) {
        best = Math.min(best, time([a, b, microBatches - a - b]));
      }
    }
    // Within what it does not bother to change.
    assert.ok(best >= 0.9 * time(counts) - 1e-9);
  };
  fc.assert(fc.property(fc.tuple(speed, speed, speed), fc.integer({ min: 3, max: 12 }), property));
});
