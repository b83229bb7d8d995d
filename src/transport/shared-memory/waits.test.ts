import assert from "node:assert/strict";
import { test } from "node:test";
import { Waits } from "./waits.ts";

test("only a rank that a wait is for is wanted, and only until its last words have come", async () => {
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
      onItsWay.add(2); // what a rank says just before it leaves
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
