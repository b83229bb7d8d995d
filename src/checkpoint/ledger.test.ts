import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Entry, Ledger, ledgerSchema } from "./ledger.ts";

const BATCH = 8;

/** A step whose samples two workers share: the first has `first` of them. */
function entry(step: number, first = 4, generation = 1): Entry {
  const [start, end] = [step * BATCH, (step + 1) * BATCH];
  const middle = start + first;
  return {
    step,
    positions: { start, end },
    generation,
    parts: [[{ start, end: middle }], middle < end ? [{ start: middle, end }] : []],
  };
}

function after(steps: number): Ledger {
  const ledger = new Ledger();
  for (let step = 0; step < steps; step++) ledger.commit(entry(step));
  return ledger;
}

test("steps that are shared in the same way are one stretch", () => {
  const ledger = after(100);
  ledger.commit(entry(100, 6));
  ledger.commit(entry(101, 6, 2));
  const { stretches } = ledger.record;
  assert.deepEqual(
    stretches.map(({ first, next, start, end }) => [first, next, start, end]),
    [
      [0, 100, 0, 800],
      [100, 101, 800, 808],
      [101, 102, 808, 816],
    ],
  );
  assert.deepEqual(
    stretches.map(({ generation, samples }) => [generation, samples]),
    [
      [1, [4, 4]],
      [1, [6, 2]],
      [2, [6, 2]],
    ],
  );
  assert.equal(ledger.samplesCommitted, 816);
  assert.equal(ledger.samplesRepeated, 0);
});

const wrong: readonly [string, (right: Entry) => Entry, RegExp][] = [
  ["is made twice", (right) => ({ ...right, step: 2 }), /step 2 follows 3 entered steps/],
  ["is left out", () => entry(4), /step 4 follows 3/],
  [
    "has the positions of the step before",
    (right) => ({ ...entry(2), step: right.step }),
    /step 3 would commit position 16 again/,
  ],
  [
    "has the positions of the step after",
    (right) => ({ ...entry(4), step: right.step }),
    /would leave out positions 24 to 31/,
  ],
  [
    "has a sample that two workers compute",
    (right) => ({ ...right, parts: [[{ start: 24, end: 29 }], [{ start: 28, end: 32 }]] }),
    /would commit position 28 again/,
  ],
  [
    "has a sample that no worker computes",
    (right) => ({ ...right, parts: [[{ start: 24, end: 27 }], [{ start: 28, end: 32 }]] }),
    /would leave out positions 27 to 27/,
  ],
  [
    "has a worker with too few samples at its end",
    (right) => ({ ...right, parts: [[{ start: 24, end: 28 }], [{ start: 28, end: 31 }]] }),
    /owns positions 24 to 32, and its workers have 24 to 31/,
  ],
];
for (const [what, change, message] of wrong) {
  test(`a step that ${what} is refused, and nothing of it is entered`, () => {
    const ledger = after(3);
    const before = ledger.record;
    assert.throws(() => ledger.check(change(entry(3))), message);
    assert.throws(() => ledger.commit(change(entry(3))), message);
    assert.deepEqual(ledger.record, before);
    ledger.commit(entry(3));
  });
}

test("a ledger goes on from its record, and says what a fall-back repeats", () => {
  const kept = after(5);
  const record = ledgerSchema.parse(JSON.parse(JSON.stringify(kept.record)));
  const resumed = new Ledger(record);
  assert.equal(resumed.steps, 5);
  // Step 7 was committed and told when the run fell back to step 5.
  resumed.fellBackFrom(7 * BATCH);
  for (let step = 5; step < 9; step++) resumed.commit(entry(step));
  assert.equal(resumed.samplesCommitted, 9 * BATCH);
  assert.equal(resumed.samplesRepeated, 2 * BATCH);
  const stopped = new Ledger(resumed.record);
  stopped.fellBackFrom(9 * BATCH);
  assert.equal(stopped.samplesRepeated, 2 * BATCH);
});

test("in any history each position is committed once", () => {
  const step = fc.record({ first: fc.integer({ min: 1, max: BATCH }), isNew: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ledger = new Ledger();
      let generation = 1;
      for (const [index, { first, isNew }] of steps.entries()) {
        if (isNew) generation += 1;
        ledger.commit(entry(index, first, generation));
      }
      assert.equal(ledger.samplesCommitted, steps.length * BATCH);
      let at = 0;
      for (const { start, end, first, next, samples } of ledger.record.stretches) {
        assert.equal(start, at);
        assert.equal(end - start, (next - first) * samples.reduce((sum, of) => sum + of, 0));
        at = end;
      }
      assert.equal(at, steps.length * BATCH);
    }),
  );
});
