import assert from "node:assert/strict";
import { test } from "node:test";
import { eventSchema } from "./check.ts";
import type { RunEvent } from "./events.ts";

const STEP: RunEvent = {
  type: "step",
  step: 1,
  steps: 2,
  loss: 3,
  gradientNorm: 1,
  learningRate: 0.1,
  samplesPerSecond: 10,
  tokensPerSecond: undefined,
  secondsLeft: 1,
};

const isTaken = (value: unknown) => eventSchema.safeParse(value).success;

test("an event is accepted as it was sent, also over JSON, where null stands for a number that is not finite", () => {
  const event = { ...STEP, gradientNorm: Number.POSITIVE_INFINITY };
  const over = eventSchema.parse(JSON.parse(JSON.stringify(event)));
  const { tokensPerSecond: _, ...rest } = event;
  assert.deepEqual(over, { ...rest, gradientNorm: Number.NaN });
  assert.deepEqual(eventSchema.parse(event), event);
});

test("a value that is not an event is refused", () => {
  const { loss: _, ...without } = STEP as unknown as Record<string, unknown>;
  for (const value of [
    undefined,
    null,
    [],
    "step",
    {},
    { type: "step" },
    { type: "__proto__" },
    { type: ["step"] },
    without,
    { ...STEP, step: -1 },
    { ...STEP, step: 1.5 },
    { ...STEP, loss: "3" },
    { ...STEP, more: 1 },
    { type: "notice", text: "x".repeat(20_000) },
    { type: "stopped", step: 1, steps: 2, out: "o", files: Array(5000).fill("f") },
    { type: "finished", report: {}, files: [], out: "o" },
    { type: "evaluated", step: 1, loss: 1, measures: { a: {} } },
  ]) {
    assert.equal(isTaken(value), false, JSON.stringify(value)?.slice(0, 100));
  }
});
