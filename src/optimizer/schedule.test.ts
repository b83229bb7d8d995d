import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { constant, cosine, linear, type Schedule, scheduleFactor, wsd } from "./schedule.ts";

const at = (schedule: Schedule, steps: readonly number[], runSteps?: number) =>
  steps.map((step) => Number(scheduleFactor(schedule, step, runSteps).toFixed(12)));

test("warm-up rises in equal parts and never starts at zero", () => {
  for (const schedule of [constant({ warmup: 4 }), cosine({ warmup: 4, steps: 20 })]) {
    assert.deepEqual(at(schedule, [0, 1, 2, 3, 4]), [0.25, 0.5, 0.75, 1, 1]);
  }
  assert.deepEqual(at(constant(), [0, 1, 1000]), [1, 1, 1]);
});

test("linear falls in a straight line to its final factor", () => {
  assert.deepEqual(at(linear({ steps: 10 }), [0, 5, 10, 11]), [1, 0.5, 0, 0]);
  assert.deepEqual(at(linear({ warmup: 2, final: 0.2 }), [2, 6, 10], 10), [1, 0.6, 0.2]);
});

test("cosine follows half a wave", () => {
  const schedule = cosine({ warmup: 10, steps: 110, final: 0.1 });
  for (let step = 10; step <= 110; step++) {
    const closed = 0.1 + 0.45 * (1 + Math.cos((Math.PI * (step - 10)) / 100));
    assert.ok(Math.abs(scheduleFactor(schedule, step) - closed) < 1e-12);
  }
});

test("warm-up, stable, decay", () => {
  const schedule = wsd({ warmup: 2, decay: 4 });
  assert.deepEqual(at(schedule, [0, 1, 2, 5, 6, 7, 8, 10], 10), [0.5, 1, 1, 1, 1, 0.75, 0.5, 0]);
  const root = wsd({ decay: 4, steps: 10, shape: "sqrt" });
  assert.deepEqual(at(root, [6, 7, 10]), [1, 0.5, 0]);
});

test("every schedule stays between its final factor and 1, and only falls after warm-up", () => {
  const options = fc.record({
    kind: fc.constantFrom("constant", "linear", "cosine", "wsd"),
    warmup: fc.nat(50),
    steps: fc.integer({ min: 1, max: 300 }),
    final: fc.double({ min: 0, max: 1, noNaN: true }),
    decay: fc.nat(100),
  });
  fc.assert(
    fc.property(options, (given) => {
      const schedule = given as Schedule;
      let before = Number.POSITIVE_INFINITY;
      for (let step = 0; step < 320; step++) {
        const factor = scheduleFactor(schedule, step);
        assert.ok(factor > 0 || step >= given.warmup);
        assert.ok(factor <= 1 + 1e-12);
        if (step < given.warmup) continue;
        assert.ok(factor >= Math.min(given.final, 1) - 1e-12 && factor <= before + 1e-12);
        before = factor;
      }
    }),
    { numRuns: 200 },
  );
});

test("a schedule that ends must know the number of steps", () => {
  assert.throws(() => scheduleFactor(cosine(), 3), { code: "INVALID_OPTION", message: /cosine/ });
});

test("options out of range are refused by name", () => {
  assert.throws(() => cosine({ warmup: -1 }), { code: "INVALID_OPTION", message: /warmup/ });
  assert.throws(() => linear({ final: 2 }), { code: "INVALID_OPTION", message: /final/ });
  assert.throws(() => wsd({ decay: Number.NaN }), { code: "INVALID_OPTION", message: /decay/ });
});
