import assert from "node:assert/strict";
import { test } from "node:test";
import { inLanes } from "./lanes.ts";

test("inLanes takes every item once and never exceeds the number of lanes", async () => {
  const taken: number[] = [];
  let [open, most] = [0, 0];
  await inLanes([...new Array(20).keys()], 3, async (item) => {
    open += 1;
    most = Math.max(most, open);
    await Promise.resolve();
    taken.push(item);
    open -= 1;
  });
  assert.deepEqual(
    taken.sort((a, b) => a - b),
    [...new Array(20).keys()],
  );
  assert.equal(most, 3);
});

test("after a failure no item starts, and all running items have ended", async () => {
  const log: string[] = [];
  let release = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const running = inLanes(["slow", "bad", "never"], 2, async (item) => {
    log.push(`start ${item}`);
    if (item === "bad") {
      setImmediate(release);
      throw new Error("bad item");
    }
    await gate;
    log.push(`end ${item}`);
  });
  await assert.rejects(running, /bad item/);
  assert.deepEqual(log, ["start slow", "start bad", "end slow"]);
});
