import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { LockstepError } from "../errors.ts";
import {
  beginDraft,
  discardDraft,
  listSteps,
  publish,
  readManifest,
  removeStep,
} from "./folder.ts";
import type { Manifest } from "./manifest.ts";
import { sourceOf } from "./read.ts";
import { gatherShards, writeShard } from "./write.ts";

const said = {
  lockstep: "1",
  position: 8,
  seed: 1,
  seconds: 0.5,
  trainLoss: null,
  diverged: false,
  identity: { batch: "8" },
  identitySha256: "0".repeat(64),
};
const bytes = (text: string) => [Buffer.from(text)];

async function whole(folder: string, step: number): Promise<Manifest> {
  const draft = await beginDraft(folder, step, [0, 2]);
  await Promise.all([
    writeShard(join(folder, draft), 2, bytes("second")),
    writeShard(join(folder, draft), 0, bytes("first")),
  ]);
  const shards = await gatherShards(join(folder, draft), [0, 2]);
  const manifest = { ...said, step, shards, tensors: {} };
  await publish(folder, draft, manifest);
  return manifest;
}

test("a checkpoint is there when it is published, with the hashes of its shards", () =>
  withFolder({}, async (folder) => {
    const manifest = await whole(folder, 3);
    assert.deepEqual(listSteps(folder), [3]);
    const path = join(folder, "step-3");
    assert.deepEqual(await readManifest(path), manifest);
    assert.deepEqual(readdirSync(path).sort(), [
      "manifest.json",
      "shard-00001-of-00002.safetensors",
      "shard-00002-of-00002.safetensors",
    ]);
    const file = readFileSync(join(path, "shard-00002-of-00002.safetensors"));
    assert.equal(file.toString(), "second");
    assert.equal(manifest.shards[1]?.sha256, createHash("sha256").update(file).digest("hex"));
    const source = sourceOf(path, manifest);
    assert.equal(await source.check(1), undefined);
    writeFileSync(join(path, "shard-00002-of-00002.safetensors"), "sedond");
    assert.equal(await source.check(1), "other bytes");
    writeFileSync(join(path, "shard-00002-of-00002.safetensors"), "secon");
    assert.equal(await source.check(1), "another size");
    await removeStep(folder, 3);
    assert.deepEqual(readdirSync(folder), []);
  }));

test("a checkpoint of the same step is replaced, and drafts that were left are removed", () =>
  withFolder({}, async (folder) => {
    await whole(folder, 3);
    mkdirSync(join(folder, `.step-4.${"a".repeat(12)}.tmp`));
    mkdirSync(join(folder, "step-x"));
    await whole(folder, 3);
    assert.deepEqual(readdirSync(folder).sort(), ["step-3", "step-x"]);
    assert.deepEqual(listSteps(folder), [3]);
  }));

test("the failure of another writer is told by its code, and nothing is visible", () =>
  withFolder({}, async (folder) => {
    const draft = await beginDraft(folder, 5, [0, 1]);
    const full = (function* () {
      yield Buffer.from("half");
      throw Object.assign(new Error("write"), { code: "ENOSPC", syscall: "write" });
    })();
    await assert.rejects(writeShard(join(folder, draft), 1, full), {
      code: "DISK_FULL",
      message: /Cannot write ".*step-5": the disk is full/,
    });
    await writeShard(join(folder, draft), 0, bytes("whole"));
    await assert.rejects(gatherShards(join(folder, draft), [0, 1]), {
      code: "DISK_FULL",
      message: /Worker 1 cannot write its shard of the checkpoint ".*step-5": the disk is full/,
    });
    await discardDraft(folder, draft);
    assert.deepEqual(listSteps(folder), []);
  }));

test("a writer that is lost ends the wait with the error of the group, unless all have written", () =>
  withFolder({}, async (folder) => {
    const lost = new LockstepError("PEER_LOST", "Worker 1 is lost.");
    const draft = await beginDraft(folder, 5, [0, 1]);
    await writeShard(join(folder, draft), 0, bytes("whole"));
    const controller = new AbortController();
    const waiting = gatherShards(join(folder, draft), [0, 1], controller.signal);
    controller.abort(lost);
    await assert.rejects(waiting, lost);
    await writeShard(join(folder, draft), 1, bytes("late"));
    const shards = await gatherShards(join(folder, draft), [0, 1], controller.signal);
    assert.equal(shards.length, 2);
  }));

test("a folder that cannot be written is an error", { skip: process.getuid?.() === 0 }, () =>
  withFolder({}, async (folder) => {
    chmodSync(folder, 0o500);
    await assert.rejects(beginDraft(join(folder, "checkpoints"), 1, [0]), { code: "IO_FAILED" });
    chmodSync(folder, 0o700);
  }),
);
