/** What a worker knows of the checkpoint that it is writing. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { Saver } from "./saver.ts";

test("a checkpoint is being written until it is there, or until one who writes it is lost", async () => {
  const saver = new Saver();
  const write = () => {
    const file = new AbortController();
    saver.saved = 5;
    const signal = saver.expect();
    saver.begin(async () => void (await once(file.signal, "abort")));
    return { end: () => file.abort(), signal };
  };
  assert.equal(saver.isWriting(5), false, "nothing was begun");
  const first = write();
  assert.equal(saver.isWriting(5), true);
  assert.equal(saver.isWriting(4), false, "another step");
  first.end();
  await saver.idle();
  assert.equal(saver.isWriting(5), false, "it is there");
  const second = write();
  saver.lose(new LockstepError("PEER_LOST", "A worker is lost."));
  assert.equal(second.signal.aborted, true);
  assert.equal(saver.isWriting(5), false, "it may have to be written again");
  second.end();
  await saver.idle();
});
