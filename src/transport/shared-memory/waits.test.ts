import assert from "node:assert/strict";
import { test } from "node:test";
import { Waits } from "./waits.ts";

test("a rank is wanted only by a wait for it, and only until its last message has come", async () => {
  const arrived = new Set<number>();
  const onItsWay = new Set<number>();
  const asked: boolean[][] = [];
  const waits = new Waits({
    mode: "poll",
    spins: 0,
    yields: 0,
    yield: () => undefined,
    pump: () => {
      for (const peer of onItsWay) arrived.add(peer);
    },
    sleep: () => undefined,
    checkPeers: (isWanted) => {
      const before = [1, 2, 3].map(isWanted);
      onItsWay.add(2); // the last message of a rank that leaves
      asked.push(before, [1, 2, 3].map(isWanted));
    },
    fail: (error) => assert.fail(error),
  });
  await waits.wait({
    ready: () => arrived.has(2),
    from: () => 2,
    peer: () => 2,
    doing: "receiving",
    deadlineMs: 10_000,
    alone: false,
  });
  assert.deepEqual(asked, [
    [false, true, false],
    [false, false, false],
  ]);
});
