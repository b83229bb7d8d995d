/** What every place for checkpoints promises: a folder, and a bucket of a real S3 server. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { symlinkSync, unlinkSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  type CheckpointStore,
  describeFault,
  FolderStore,
  type Manifest,
  markName,
  openStore,
} from "../../src/checkpoint/index.ts";
import { LockstepError } from "../../src/errors.ts";
import { onDisk } from "../support/folder.ts";
import { NO_S3, S3Server } from "../support/s3.ts";

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

/** Larger than several parts of an upload. */
const LARGE = randomBytes(20_000_000);

function shard(...pieces: readonly Uint8Array[]) {
  return { byteLength: pieces.reduce((sum, { byteLength }) => sum + byteLength, 0), pieces };
}

async function save(
  store: CheckpointStore,
  step: number,
  shards: readonly Uint8Array[],
): Promise<Manifest> {
  const writers = shards.map((_, rank) => 2 * rank);
  const draft = await store.begin(step, writers);
  await Promise.all(shards.map((bytes, index) => store.write(draft, 2 * index, shard(bytes))));
  const written = await store.gather(draft, writers);
  const manifest = { ...said, step, shards: written, tensors: {} };
  assert.equal(await store.publish(draft, manifest), store.pathOf(step));
  return manifest;
}

const text = (word: string) => Buffer.from(word);

interface Place {
  /** A new, empty place. */
  open(): Promise<CheckpointStore>;
  /** The names of all that lies in a place, without what it has of its own. */
  list(store: CheckpointStore): Promise<string[]>;
  /** Changes a shard behind the back of the store; undefined removes it. */
  change(store: CheckpointStore, path: string, bytes: Uint8Array | undefined): Promise<void>;
  close(): Promise<void>;
}

function contract(open: () => Promise<Place>): void {
  let place: Place;
  before(async () => {
    place = await open();
  });
  after(() => place.close());

  test("a checkpoint is there when it is published, whole, with the hashes of its shards", async () => {
    const store = await place.open();
    assert.deepEqual(await store.steps(), []);
    const manifest = await save(store, 3, [text("first"), LARGE]);
    assert.deepEqual(await store.steps(), [3]);
    assert.deepEqual(await store.manifest(3), manifest);
    assert.equal((await place.list(store)).length, 3);
    const hash = createHash("sha256").update(LARGE).digest("hex");
    assert.deepEqual(
      [manifest.shards[1]?.byteLength, manifest.shards[1]?.sha256],
      [LARGE.byteLength, hash],
    );
    const source = store.source(3, manifest);
    assert.deepEqual([await source.check(0), await source.check(1)], [undefined, undefined]);
    const found = new Uint8Array(1000);
    await source.read(1, 12_345_678, found);
    assert.deepEqual(found, new Uint8Array(LARGE.subarray(12_345_678, 12_346_678)));
    await source.close();
    await store.remove(3);
    assert.deepEqual(await place.list(store), []);
  });

  test("a shard that is changed, cut or lost is named", async () => {
    const store = await place.open();
    const manifest = await save(store, 3, [text("first"), text("second")]);
    const source = store.source(3, manifest);
    const [, path = ""] = source.files;
    for (const [bytes, fault] of [
      [text("sedond"), "other bytes"],
      [text("secon"), "another size"],
      [undefined, "missing"],
    ] as const) {
      await place.change(store, path, bytes);
      assert.equal(await source.check(1), fault);
      assert.ok(describeFault(path, fault).includes(path));
    }
    assert.equal(await source.check(0), undefined);
    await assert.rejects(source.read(1, 0, new Uint8Array(6)), { code: "FILE_NOT_FOUND" });
    await place.change(store, path, text("sec"));
    await assert.rejects(source.read(1, 0, new Uint8Array(6)), { code: "FILE_CORRUPT" });
    await source.close();
  });

  test("a manifest that was edited, or lost, is damaged", async () => {
    const store = await place.open();
    const manifest = await save(store, 3, [text("first")]);
    const path = `${store.pathOf(3)}/manifest.json`;
    await place.change(store, path, text(JSON.stringify({ ...manifest, step: 4 })));
    await assert.rejects(store.manifest(3), { code: "CHECKPOINT", message: /is damaged/ });
    await place.change(store, path, undefined);
    await assert.rejects(store.manifest(3), {
      code: "CHECKPOINT",
      message: /step-3" is damaged: it has no manifest/,
    });
  });

  test("a checkpoint of the same step is replaced, and drafts that were left are removed", async () => {
    const store = await place.open();
    await save(store, 3, [text("old")]);
    const left = await store.begin(4, [0, 2]);
    await store.write(left, 0, shard(text("half of it")));
    assert.deepEqual(await store.steps(), [3]);
    const manifest = await save(store, 3, [text("new")]);
    // What a process that was killed has left goes when the next run begins, too.
    await store.removeDrafts();
    assert.equal((await place.list(store)).length, 2, (await place.list(store)).join());
    assert.deepEqual(await store.manifest(3), manifest);
    assert.equal(await store.source(3, manifest).check(0), undefined);
  });

  test("the failure of another writer is told by its code, and nothing is visible", async () => {
    const store = await place.open();
    const draft = await store.begin(5, [0, 1]);
    const full = (function* () {
      yield text("half");
      throw new LockstepError("DISK_FULL", "There is no room.");
    })();
    await assert.rejects(store.write(draft, 1, { byteLength: 8, pieces: full }), {
      code: "DISK_FULL",
    });
    await store.write(draft, 0, shard(text("whole")));
    await assert.rejects(store.gather(draft, [0, 1]), {
      code: "DISK_FULL",
      message: /Worker 1 cannot write its shard of the checkpoint ".*step-5": the disk is full/,
    });
    await store.discard(draft);
    assert.deepEqual(await place.list(store), []);
  });

  test("a writer that is lost ends the wait with the error of the group, unless all have written", async () => {
    const store = await place.open();
    const lost = new LockstepError("PEER_LOST", "Worker 1 is lost.");
    const draft = await store.begin(5, [0, 1]);
    await store.write(draft, 0, shard(text("whole")));
    const controller = new AbortController();
    const waiting = store.gather(draft, [0, 1], controller.signal);
    controller.abort(lost);
    await assert.rejects(waiting, lost);
    await store.write(draft, 1, shard(text("late")));
    const shards = await store.gather(draft, [0, 1], controller.signal);
    assert.deepEqual(
      shards.map(({ byteLength }) => byteLength),
      [5, 4],
    );
  });

  test("a checkpoint that is set aside is kept, and is none any more", async () => {
    const store = await place.open();
    await save(store, 3, [text("first")]);
    await save(store, 6, [text("second")]);
    await store.setAside(6);
    assert.deepEqual(await store.steps(), [3]);
    const aside = (await place.list(store)).filter((name) => name.includes("aside-step-6/"));
    assert.equal(aside.length, 2);
    assert.ok(aside.some((name) => name.endsWith("manifest.json")));
  });

  test("a place that was given back is held at once, and checkpoints are written by its holder", async () => {
    const store = await place.open();
    const first = await store.hold(holder);
    await first.release();
    const second = await store.hold(holder);
    await save(store, 3, [text("bytes")]);
    assert.deepEqual(await store.steps(), [3]);
    await second.release();
    const left = (await place.list(store)).filter((name) => !name.includes("step-3/"));
    assert.deepEqual(left, []);
  });

  test("small texts lie beside checkpoints", async () => {
    const store = await place.open();
    assert.equal(await store.readText("note.json"), undefined);
    await store.writeText("note.json", "a note");
    assert.equal(await store.readText("note.json"), "a note");
    assert.deepEqual(await store.steps(), []);
    await store.removeText("note.json");
    await store.removeText("note.json");
    assert.equal(await store.readText("note.json"), undefined);
    assert.deepEqual(await place.list(store), []);
  });
}

const holder = { host: "here", pid: process.pid, space: "one", since: "2026-01-01T00:00:00Z" };

describe("a folder", () => {
  contract(openFolders);

  test("what cannot be read is not told as missing", async () => {
    const place = await openFolders();
    const store = await place.open();
    const source = store.source(3, await save(store, 3, [text("first")]));
    const [shard = ""] = source.files;
    const manifest = `${store.pathOf(3)}/manifest.json`;
    for (const path of [shard, manifest]) {
      // A link to itself cannot be read by anybody, not even by root.
      unlinkSync(path);
      symlinkSync(path, path);
    }
    assert.equal(await source.check(0), "not readable");
    await assert.rejects(store.manifest(3), { code: "IO_FAILED", message: /^Cannot read/ });
    await place.close();
  });

  test("what a leader that was killed has left in its search for others is removed", async () => {
    const place = await openFolders();
    const store = await place.open();
    for (const name of [markName(), `${markName()}.3`]) await store.writeText(name, "");
    await store.writeText("note.json", "of the user");
    await store.removeDrafts();
    assert.deepEqual(await place.list(store), [join(store.place, "note.json")]);
    await place.close();
  });
});
describe("a bucket", { skip: NO_S3 }, () => contract(openBuckets));

async function openFolders(): Promise<Place> {
  const { readdir, unlink, writeFile } = await import("node:fs/promises");
  const root = await mkdtemp(join(onDisk(), "lockstep-test-"));
  let count = 0;
  return {
    open: async () => new FolderStore(join(root, `place-${++count}`)),
    list: async ({ place }) => {
      const all = await readdir(place, { recursive: true, withFileTypes: true }).catch(() => []);
      return all
        .filter((one) => one.isFile())
        .map(({ parentPath, name }) => join(parentPath, name));
    },
    change: (_, path, bytes) => (bytes === undefined ? unlink(path) : writeFile(path, bytes)),
    close: () => rm(root, { recursive: true, force: true }),
  };
}

async function openBuckets(): Promise<Place> {
  const server = await S3Server.start();
  const bucket = await server.makeBucket("checkpoints");
  const keyOf = (address: string) => address.slice("s3://checkpoints/".length);
  let count = 0;
  return {
    open: async () => openStore(`s3://checkpoints/place-${++count}/of/it`, server.env()),
    list: async ({ place }) => (await bucket.list(`${keyOf(place)}/`)).map(({ key }) => key),
    change: (_, path, bytes) =>
      bytes === undefined ? bucket.remove(keyOf(path)) : bucket.put(keyOf(path), bytes),
    close: () => server.stop(),
  };
}
