import assert from "node:assert/strict";
import { test } from "node:test";
import { OwnClock } from "./own-clock.ts";

test("a process that was stopped knows it for a while, then forgets it", () => {
  let now = 0;
  const clock = new OwnClock(() => now);
  try {
    now += 1500;
    assert.equal(clock.stoodStillMs, 0);
    now += 12_000;
    assert.equal(clock.stoodStillMs, 12_000);
    now += 4000;
    assert.equal(clock.stoodStillMs, 12_000);
    for (let second = 0; second < 15; second++) {
      now += 1000;
      void clock.stoodStillMs;
    }
    assert.equal(clock.stoodStillMs, 0);
  } finally {
    clock.close();
  }
});

test("a time of day that is set forward or back is no pause", (t) => {
  const before = Date.now();
  let shift = 0;
  t.mock.method(Date, "now", () => before + shift);
  const clock = new OwnClock();
  try {
    for (shift of [3_600_000, -3_600_000]) assert.equal(clock.stoodStillMs, 0);
  } finally {
    clock.close();
  }
});
