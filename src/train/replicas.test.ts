import assert from "node:assert/strict";
import { test } from "node:test";
import { type Sums, type Told, type Wrong, wrongRanks } from "./replicas.ts";

const right: Sums = { sealed: 7, now: 7 };
const flipped: Sums = { sealed: 7, now: 8 };
const older: Sums = { sealed: 9, now: 9 };

/** Ranks that hold all of the state alike. */
function alike(...sums: readonly Sums[]): Told[] {
  return sums.map((whole) => ({ whole, own: { sealed: 0, now: 0 }, place: 0 }));
}

function found(told: readonly Told[]): [number, number | undefined, boolean][] {
  return wrongRanks(told).map(({ rank, right: from, isOld }: Wrong) => [rank, from?.rank, isOld]);
}

test("nothing is wrong where all are alike", () => {
  assert.deepEqual(found(alike(right)), []);
  assert.deepEqual(found(alike(right, right, right)), []);
});

test("a change since the last commit is healed from any other replica", () => {
  assert.deepEqual(found(alike(flipped, right)), [[0, 1, false]]);
  assert.deepEqual(found(alike(right, flipped, flipped)), [
    [1, 0, false],
    [2, 0, false],
  ]);
});

test("two ranks that changed in the same way do not outvote what they were", () => {
  assert.deepEqual(found(alike(flipped, flipped, right)), [
    [0, 2, false],
    [1, 2, false],
  ]);
});

test("an older difference is healed from the majority", () => {
  assert.deepEqual(found(alike(right, right, older)), [[2, 0, true]]);
  assert.deepEqual(found(alike(older, right, right, right)), [[0, 1, true]]);
  // The rank that changed since then still has a vote.
  assert.deepEqual(found(alike(flipped, right, older)), [
    [0, 1, false],
    [2, 1, true],
  ]);
});

test("without a majority, or without a rank that has the right bytes, nothing is healed", () => {
  assert.deepEqual(found(alike(right, older)), [
    [0, undefined, true],
    [1, undefined, true],
  ]);
  assert.deepEqual(
    found(alike(right, right, older, older)).map(([rank, from]) => [rank, from]),
    [0, 1, 2, 3].map((rank) => [rank, undefined]),
  );
  assert.deepEqual(found(alike(flipped)), [[0, undefined, false]]);
  assert.deepEqual(found(alike(flipped, { sealed: 7, now: 1 })), [
    [0, undefined, false],
    [1, undefined, false],
  ]);
});

test("what ranks of a place hold is compared among them alone", () => {
  const at = (place: number, own: Sums): Told => ({ whole: right, own, place });
  const other: Sums = { sealed: 3, now: 3 };
  // Two shard groups of two: ranks 0 and 2 hold the same, and ranks 1 and 3.
  assert.deepEqual(found([at(5, right), at(6, other), at(5, right), at(6, other)]), []);
  assert.deepEqual(
    found([at(5, right), at(6, { sealed: 3, now: 7 }), at(5, right), at(6, other)]),
    [[1, 3, false]],
  );
  // A place without a replica.
  assert.deepEqual(found([at(5, right), at(6, { sealed: 3, now: 7 })]), [[1, undefined, false]]);
});
