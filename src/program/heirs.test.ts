/** Who can give what after ranks were lost: facts in, ranks out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Heirs, type Heritage } from "./heirs.ts";
import type { Gathered, Held } from "./ownership.ts";

const partOf = (rank: number): Held => ({ buffer: "slot", rank, byteOffset: 0, byteLength: 4 });
const gatheredOf = (rank: number, isMadeOnce = false): Gathered => {
  return { ...partOf(rank), buffer: "parameters", isMadeOnce };
};

/** Four ranks of two nodes divide everything; each has a buddy on the other node. */
const OVER_NODES: Omit<Heritage, "living"> = {
  nodes: [
    [0, 1],
    [2, 3],
  ],
  owners: {
    groups: [[0, 1, 2, 3]],
    buddies: [
      { of: 0, at: 2 },
      { of: 1, at: 3 },
      { of: 2, at: 0 },
      { of: 3, at: 1 },
    ],
  },
  finishing: [],
};

const heirs = (living: readonly number[], of: Partial<Heritage> = {}) =>
  new Heirs({ ...OVER_NODES, ...of, living });

test("what a lost node held is given by the buddies, out of their own memory first", () => {
  const left = heirs([2, 3]);
  assert.deepEqual(left.giversOf(partOf(0)), [
    { rank: 2, memory: 2 },
    { rank: 3, memory: 2 },
  ]);
  assert.equal(left.memoryFor(3, partOf(1)), 3);
  assert.equal(left.memoryFor(2, partOf(2)), 2);
  assert.deepEqual(left.giversOf(undefined), [
    { rank: 2, memory: 2 },
    { rank: 3, memory: 3 },
  ]);
});

test("a lost worker's memory is read by its node, if the worker's update is known to be finished", () => {
  assert.deepEqual(heirs([1, 2, 3]).giversOf(partOf(0)), [
    { rank: 1, memory: 0 },
    { rank: 2, memory: 2 },
    { rank: 3, memory: 2 },
  ]);
  // Two shard groups in one node: nobody of the group of the lost ranks has seen the end of it.
  const groups = [
    [0, 1],
    [2, 3],
  ];
  const alone = { nodes: [[0, 1, 2, 3]], owners: { groups, buddies: [] } };
  const memories = (living: readonly number[], finishing: readonly number[] = []) =>
    heirs(living, { ...alone, finishing })
      .giversOf(partOf(1))
      .map(({ memory }) => memory);
  assert.deepEqual(memories([0]), [1]);
  assert.deepEqual(memories([2]), [3]);
  assert.deepEqual(memories([0, 2], [0]), [1, 3, 1, 3]);
});

test("a part is lost with its node and its buddy's, and only then", () => {
  const singles: Partial<Heritage> = {
    nodes: [[0], [1], [2]],
    owners: {
      groups: [[0, 1, 2]],
      buddies: [
        { of: 0, at: 1 },
        { of: 1, at: 2 },
        { of: 2, at: 0 },
      ],
    },
  };
  assert.deepEqual(heirs([2], singles).giversOf(partOf(0)), []);
  assert.deepEqual(heirs([2], singles).giversOf(partOf(1)), [{ rank: 2, memory: 2 }]);
  assert.deepEqual(heirs([1, 2], singles).giversOf(partOf(0)), [{ rank: 1, memory: 1 }]);
});

test("new parameters that were not gathered are with those that made them, or have ended the commit", () => {
  const made = (living: readonly number[], finishing: readonly number[], part: Gathered) =>
    heirs(living, { finishing })
      .giversOf(part)
      .map(({ memory }) => memory);
  assert.deepEqual(made([2, 3], [2, 3], gatheredOf(0)), [2, 2]);
  assert.deepEqual(made([2, 3], [2], gatheredOf(0)), [2, 3, 3, 2]);
  // An update of whole tensors is made by one rank: it is lost with that rank's node.
  assert.deepEqual(made([2, 3], [2, 3], gatheredOf(0, true)), []);
  assert.deepEqual(made([1, 2, 3], [1, 2, 3], gatheredOf(0, true)), [0]);
});
