import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { evenRanges } from "../program/index.ts";
import { Pacing } from "./pacing.ts";

type Paces = (step: number) => readonly number[];

interface Told {
  readonly step: number;
  readonly counts: readonly number[];
  readonly reason: string;
}

/** What two ranks or more decide over some steps, each by itself; all must decide the same. */
function decisions(
  ranks: number,
  microBatches: number,
  steps: number,
  paces: Paces,
): readonly Told[] {
  const all = Array.from(
    { length: ranks },
    (_, rank) => new Pacing(rank, evenRanges(microBatches, ranks), microBatches),
  );
  const told: Told[] = [];
  for (let step = 0; step < steps; step++) {
    const heard = all
      .map((pacing) => pacing.told())
      .reduce((sum, own) => sum.map((value, rank) => value + (own[rank] as number)));
    for (const [rank, pacing] of all.entries()) {
      pacing.hear(heard);
      pacing.measured(paces(step)[rank] as number, 1);
    }
    const [first, ...others] = all.map((pacing) => pacing.decide());
    for (const other of others) assert.deepEqual(other, first);
    if (first === undefined) continue;
    told.push({ step, counts: first.ranges.map(({ count }) => count), reason: first.reason });
  }
  return told;
}

/** Draws from [0.7, 1.3): noise of 30%, the same for the same seed. */
function noise(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return 0.7 + (0.6 * ((mixed ^ (mixed >>> 14)) >>> 0)) / 2 ** 32;
  };
}

const sharings = fc.constantFrom<[number, number]>(
  [2, 4],
  [2, 8],
  [2, 32],
  [3, 8],
  [4, 16],
  [8, 64],
);

test("noise of 30% around equal paces changes nothing in a thousand steps", () => {
  const property = ([ranks, microBatches]: [number, number], seed: number) => {
    const draw = noise(seed);
    const drawn = Array.from({ length: 1000 }, () => Array.from({ length: ranks }, draw));
    const told = decisions(ranks, microBatches, 1000, (step) => drawn[step] as number[]);
    assert.deepEqual(told, []);
  };
  fc.assert(fc.property(sharings, fc.nat(), property), { numRuns: 20 });
});

test("a rank at half speed is found within 20 steps, under noise within 100, and keeps its share", () => {
  const property = (
    [ranks, microBatches]: [number, number],
    seed: number,
    begin: number,
    isNoisy: boolean,
  ) => {
    const draw = noise(seed);
    const drawn = Array.from({ length: 400 }, (_, step) =>
      Array.from({ length: ranks }, (__, rank) => {
        const slow = rank === 0 && step >= begin ? 2 : 1;
        return slow * (isNoisy ? draw() : 1);
      }),
    );
    const told = decisions(ranks, microBatches, 400, (step) => drawn[step] as number[]);
    const changes = told.filter(({ reason }) => reason.startsWith("Workers"));
    const even = Math.ceil(microBatches / ranks);
    const bound = begin + (isNoisy ? 100 : 20);
    assert.ok((changes[0]?.step ?? 999) <= bound, `found at step ${changes[0]?.step}`);
    assert.ok((changes.at(-1)?.counts[0] ?? even) < even);
    assert.ok(changes.length <= 2, `${changes.length} changes`);
  };
  fc.assert(fc.property(sharings, fc.nat(), fc.nat(100), fc.boolean(), property), { numRuns: 40 });
});

test("a load that comes and goes every six steps changes nothing", () => {
  for (const [ranks, microBatches] of [
    [2, 4],
    [2, 8],
    [4, 16],
  ] as const) {
    for (const factor of [2, 3]) {
      const isOn = (step: number) => Math.floor(step / 6) % 2 === 1;
      const paces: Paces = (step) =>
        Array.from({ length: ranks }, (_, rank) => (rank === 1 && isOn(step) ? factor : 1));
      assert.deepEqual(decisions(ranks, microBatches, 300, paces), []);
    }
  }
});

test("a rank that recovers gets its share back", () => {
  const told = decisions(2, 8, 200, (step) => [1, step < 100 ? 2 : 1]);
  assert.deepEqual(
    told.map(({ counts }) => counts),
    [
      [6, 2],
      [4, 4],
    ],
  );
  assert.ok((told[1]?.step ?? 999) <= 120);
});

test("a load that comes and goes every 30 steps is followed at first, and then ever more rarely", () => {
  const told = decisions(2, 8, 1200, (step) => [1, Math.floor(step / 30) % 2 === 1 ? 3 : 1]);
  const before = (step: number) => told.filter((change) => change.step < step).length;
  assert.ok(before(120) >= 2);
  assert.ok(told.length <= 10, `${told.length} changes in 1200 steps`);
});

test("a worker far below the rest is reported once, also where nothing can be shared anew", () => {
  const told = decisions(4, 4, 300, () => [1, 1, 4, 1.2]);
  assert.deepEqual(
    told.map(({ reason }) => reason),
    [
      "Worker 2 has had 25% of the speed of the others for 20 steps: look at what else runs on its machine.",
    ],
  );
  assert.deepEqual(told[0]?.counts, [1, 1, 1, 1]);
});
