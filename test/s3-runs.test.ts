/**
 * Checkpoints of several workers in a bucket: workers of all nodes write their shards there, and a
 * request to a server that says nothing ends.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { openStore } from "../src/checkpoint/index.ts";
import { S3Owner } from "../src/checkpoint/s3-owner.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { prepareFolder } from "../src/run/folder.ts";
import { defineRun, openRunFolder } from "../src/run/index.ts";
import { withFolder } from "./support/folder.ts";
import { simulatedRanks } from "./support/ranks.ts";
import { reportOf, textRun, tryRun, WORDS } from "./support/runs.ts";
import { NO_S3, S3Server, Way } from "./support/s3.ts";

const NODES = [
  [0, 1],
  [2, 3],
];

describe("a bucket", { skip: NO_S3 }, () => {
  let server: S3Server;
  before(async () => {
    server = await S3Server.start();
    await server.makeBucket("runs");
    // Runs find the server there.
    Object.assign(process.env, server.env());
  });
  after(() => server.stop());

  test("takes a shard of each worker of two nodes, and gives it to any other number", () =>
    withFolder({ "words.txt": WORDS }, async (folder) => {
      const engine = createOrtEngine({ threads: 2 });
      const [whole, out] = [join(folder, "whole"), join(folder, "out")];
      const plain = defineRun({ ...textRun.stated, microBatches: 4 });
      await tryRun(plain, { engine, folder, out: whole });
      const checkpoints = "s3://runs/nodes";
      const run = defineRun({ ...plain.stated, checkpoints, parallel: { shard: 4 } });
      const { groups, close } = simulatedRanks(engine, 4, true, NODES);
      await Promise.all(
        groups.map((group, rank) =>
          tryRun(run, {
            engine,
            folder,
            out,
            stopAt: (event) => rank === 0 && event.type === "step" && event.step === 4,
            ranks: { group, adapt: false },
          }),
        ),
      );
      await close();
      const store = openStore(checkpoints, server.env());
      assert.deepEqual(await store.steps(), [3, 5]);
      for (const step of [3, 5]) {
        const manifest = await store.manifest(step);
        assert.equal(manifest.shards.length, 4);
        const sizes = manifest.shards.map(({ byteLength }) => byteLength);
        assert.ok(Math.max(...sizes) < 3 * Math.min(...sizes), sizes.join());
      }
      const { events } = await tryRun(defineRun({ ...plain.stated, checkpoints }), {
        engine,
        folder,
        out,
        beginning: "resume",
      });
      const started = events.find((event) => event.type === "started");
      assert.ok(started?.type === "started" && started.firstStep === 5);
      assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
      await engine.close();
    }));

  test("keeps what a run has when another machine leads it, and puts it away for another run", () =>
    withFolder({}, async (path) => {
      const folder = await openRunFolder(path, "s3://runs/led");
      const { checkpoints } = folder;
      const draft = await checkpoints.begin(3, [0]);
      await checkpoints.write(draft, 0, { byteLength: 5, pieces: [Buffer.from("bytes")] });
      const shards = await checkpoints.gather(draft, [0]);
      const said = { lockstep: "1", position: 0, seed: 1, seconds: 0, trainLoss: null };
      const identity = { diverged: false, identity: {}, identitySha256: "0".repeat(64) };
      await checkpoints.publish(draft, { ...said, ...identity, step: 3, shards, tensors: {} });
      await prepareFolder(folder, "anew", 4);
      assert.deepEqual(await checkpoints.steps(), [3]);
      await prepareFolder(folder, "anew");
      assert.deepEqual(await checkpoints.steps(), []);
      assert.deepEqual(await openStore("s3://runs/led/earlier-1", server.env()).steps(), [3]);
    }));

  test("has one owner: another run is refused, and takes it when the owner is silent or gone", async () => {
    const bucket = server.bucket("runs");
    const key = "owned/owner.json";
    const by = { host: "a", pid: process.pid, space: "one", since: "2026-01-01T00:00:00Z" };
    const first = await S3Owner.take(bucket, { key, by });
    // It writes a new number within the time of the watch.
    await assert.rejects(S3Owner.take(bucket, { key, by: { ...by, host: "b" } }), {
      code: "RUN_LOCKED",
      message:
        /^Checkpoints are being written to "s3:\/\/runs\/owned" by process \d+ on "a", since 2026/,
    });
    await first.release();
    const [one, other] = await Promise.allSettled([
      S3Owner.take(bucket, { key, by, watchMs: 10_000 }),
      S3Owner.take(bucket, { key, by, watchMs: 10_000 }),
    ]);
    assert.deepEqual([one.status, other.status].sort(), ["fulfilled", "rejected"]);
    for (const taken of [one, other]) {
      if (taken.status === "fulfilled") await taken.value.release();
    }
    assert.equal(await bucket.get(key), undefined);
    // One that was killed on another machine writes no new number.
    await bucket.put(key, JSON.stringify({ ...by, space: "two", id: "killed", beat: 7 }));
    const second = await S3Owner.take(bucket, { key, by: { ...by, run: "r" }, watchMs: 300 });
    // Another process of the same run takes it at once, and the one before finds that.
    const third = await S3Owner.take(bucket, { key, by: { ...by, run: "r" }, watchMs: 1e9 });
    await assert.rejects(second.check(), { code: "RUN_LOCKED" });
    await second.release();
    await third.check();
    await third.release();
  });

  test("whose server says nothing any more ends a request with its address", async () => {
    const way = await Way.to(server.endpoint);
    way.isSilent = true;
    const bucket = server.bucket(
      "runs",
      { tries: 2, pauseMs: 1, answerMs: 100 },
      server.env(way.endpoint),
    );
    await assert.rejects(bucket.put("x/y", "z"), {
      code: "STORE",
      message: /^Cannot write "s3:\/\/runs\/x\/y": http:\/\/127\.0\.0\.1:\d+ does not answer\./,
    });
    await way.close();
  });

  test("that refuses a connection once gets the request again", async () => {
    const way = await Way.to(server.endpoint);
    let cuts = 0;
    way.onPiece = () => {
      if (cuts++ === 0) way.cut();
    };
    const bucket = server.bucket("runs", { pauseMs: 1 }, server.env(way.endpoint));
    await bucket.put("again", "sent");
    assert.equal(Buffer.from((await bucket.get("again")) ?? []).toString(), "sent");
    assert.ok(cuts > 1);
    await way.close();
  });
});
