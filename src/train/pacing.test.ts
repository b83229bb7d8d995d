import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { evenRanges } from "../program/index.ts";
import { Pacing } from "./pacing.ts";
import type { TooSlow } from "./step-types.ts";

type Paces = (step: number) => readonly number[];

interface Told {
  readonly step: number;
  readonly counts: readonly number[];
  readonly reason: string;
  readonly tooSlow: readonly TooSlow[];
}

/** What two ranks or more decide over some steps, each by itself; all must decide the same. */
function decisions(
  ranks: number,
  microBatches: number,
  steps: number,
  paces: Paces,
  excludeBelow?: number,
): readonly Told[] {
  const all = Array.from(
    { length: ranks },
    (_, rank) => new Pacing(rank, evenRanges(microBatches, ranks), microBatches, excludeBelow),
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
    const { ranges, reason, tooSlow } = first;
    told.push({ step, counts: ranges.map(({ count }) => count), reason, tooSlow });
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

/** The seconds of all steps, each as long as its slowest rank; a change costs so many steps more. */
function secondsOf(
  told: readonly Told[],
  paces: (step: number) => readonly number[],
  {
    steps,
    even,
    costs,
  }: { readonly steps: number; readonly even: readonly number[]; readonly costs: number },
): number {
  let [seconds, counts] = [0, even];
  for (let step = 0; step < steps; step++) {
    seconds += Math.max(...paces(step).map((pace, rank) => pace * (counts[rank] as number)));
    const change = told.find((one) => one.step === step);
    if (change === undefined || change.counts.join() === counts.join()) continue;
    counts = change.counts;
    seconds +=
      costs * Math.max(...paces(step).map((pace, rank) => pace * (counts[rank] as number)));
  }
  return seconds;
}

test("changes win more than they cost: with ranks that become slow for good, and none with noise alone", () => {
  const property = (seed: number, factors: readonly number[], begin: number) => {
    const draw = noise(seed);
    const ranks = factors.length;
    const drawn = Array.from({ length: 600 }, (_, step) =>
      factors.map((factor) => (step < begin ? 1 : factor) * draw()),
    );
    const paces = (step: number) => drawn[step] as number[];
    const microBatches = 8 * ranks;
    const told = decisions(ranks, microBatches, 600, paces);
    const even = factors.map(() => 8);
    const kept = secondsOf([], paces, { steps: 600, even, costs: 0 });
    const changed = secondsOf(told, paces, { steps: 600, even, costs: 1 });
    assert.ok(changed <= 1.01 * kept, `${changed} s with changes, ${kept} s without`);
    const [slowest = 1, second] = factors.toSorted((a, b) => b - a);
    const isFar = slowest >= 2 && second === 1;
    if (isFar) assert.ok(changed < 0.95 * kept, `${changed} s with changes, ${kept} s without`);
  };
  const factors = fc.array(fc.constantFrom(1, 1, 1, 1.5, 2, 3), { minLength: 2, maxLength: 6 });
  const some = factors.filter((all) => all.includes(1));
  fc.assert(fc.property(fc.nat(), some, fc.nat(200), property), { numRuns: 60 });
});

test("each change is told once, in the step in which it is made", () => {
  const draw = noise(7);
  const drawn = Array.from({ length: 300 }, () => [draw(), 2 * draw(), draw()]);
  const told = decisions(3, 12, 300, (step) => drawn[step] as number[]);
  const changes = told.filter(({ reason }) => reason.startsWith("Workers are"));
  const distinct = new Set(changes.map(({ counts }) => counts.join()));
  assert.equal(distinct.size, changes.length);
  for (const { counts, reason } of changes) assert.ok(reason.includes(counts.join(" + ")), reason);
});

test("a rank below what the run allows is found once, under noise, and the others never are", () => {
  const property = (seed: number, ranks: number, begin: number) => {
    const draw = noise(seed);
    const drawn = Array.from({ length: 400 }, (_, step) =>
      Array.from({ length: ranks }, (__, rank) => (rank === 1 && step >= begin ? 5 : 1) * draw()),
    );
    const told = decisions(ranks, 4 * ranks, 400, (step) => drawn[step] as number[], 0.4);
    const found = told.filter(({ tooSlow }) => tooSlow.length > 0);
    assert.deepEqual(
      found.flatMap(({ tooSlow }) => tooSlow.map(({ rank }) => rank)),
      [1],
    );
    const at = found[0]?.step ?? 999;
    assert.ok(at >= begin + 20 && at <= begin + 50, `found at step ${at}, slow from ${begin}`);
    assert.match(
      found[0]?.tooSlow[0]?.why ?? "",
      /has had \d+% of the speed .* excludes workers below 40%/,
    );
  };
  fc.assert(fc.property(fc.nat(), fc.integer({ min: 2, max: 8 }), fc.nat(200), property), {
    numRuns: 40,
  });
});

test("without the option, and with a rank that is slow for less than 20 steps, none is too slow", () => {
  const slow = (step: number) => [1, step % 40 < 15 ? 6 : 1, 1];
  assert.ok(decisions(3, 6, 400, slow, 0.4).every(({ tooSlow }) => tooSlow.length === 0));
  const told = decisions(3, 6, 400, () => [1, 6, 1]);
  assert.ok(told.length > 0 && told.every(({ tooSlow }) => tooSlow.length === 0));
});
