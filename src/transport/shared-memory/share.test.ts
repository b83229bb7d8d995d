import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../../errors.ts";
import { allocateMemory, uniqueName } from "../../memory/index.ts";
import { shareByName } from "./share.ts";

/** Two ranks: the other one has told the name of its memory, which is gone. */
function transportTo(barrier: () => Promise<void>) {
  const name = uniqueName();
  return {
    rank: 0,
    size: 2,
    send: async () => {},
    receive: async (_: number, into: Uint8Array) => {
      Buffer.from(into.buffer, into.byteOffset, into.byteLength).write(`${name}\0`);
    },
    barrier,
  };
}

test("memory whose owner has ended since it told the name is that of a lost peer", async () => {
  const own = allocateMemory(64, { shareAs: uniqueName() });
  try {
    const lost = new LockstepError("PEER_LOST", "Rank 1 has ended.");
    const alone = transportTo(() => Promise.reject(lost));
    await assert.rejects(shareByName(alone, own), { code: "PEER_LOST" });
    const both = transportTo(async () => {});
    await assert.rejects(shareByName(both, own), { code: "MEMORY_NAME" });
  } finally {
    own.close();
  }
});
