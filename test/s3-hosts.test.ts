/**
 * Runs over several machines whose checkpoints are in a bucket: each machine writes its own shards
 * there, and what is lost with a machine is not the run.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { openStore } from "../src/checkpoint/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { lockstep } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import { agentProcess, GPT, launch, reportIn, withAgents } from "./support/hosts.ts";
import { WORDS } from "./support/runs.ts";
import { NO_S3, S3Server, Way } from "./support/s3.ts";

const STEPS = 24;
const plain = GPT.replace("steps: 20", `steps: ${STEPS}, checkpointEvery: 4`);
const sharded = (more: string) => plain.replace("steps:", `zero: 3, ${more}, steps:`);
/** A machine alone cannot go on from what it holds. */
const AGAIN = /goes on from its checkpoint of step (?:8|12)/;
const machines = {
  "plain.ts": plain,
  "sharded.ts": sharded("buddies: false"),
  "guarded.ts": sharded("buddies: true"),
  "words.txt": WORDS,
  "a/words.txt": WORDS,
  "b/words.txt": WORDS,
  "c/words.txt": WORDS,
  "c/sharded.ts": sharded("buddies: false"),
};

describe("machines with checkpoints in a bucket", { skip: NO_S3 }, () => {
  let server: S3Server;
  let expected = "";
  before(async () => {
    server = await S3Server.start();
    await server.makeBucket("runs");
    // Agents and their workers find the server there.
    Object.assign(process.env, server.env());
    await withFolder(machines, (root) =>
      withAgents([root], async (hosts) => {
        assert.equal(await launch({ hosts, root, file: "plain.ts" }), "finished");
        expected = reportIn(root).weightsSha256;
      }),
    );
  });
  after(() => server.stop());

  const store = (place: string) => openStore(place, server.env());
  const shards = async (place: string, step: number) =>
    (await store(place).manifest(step)).shards.length;

  test("the machine that leads is lost: the other goes on from the bucket, and so does a third", () =>
    withFolder(machines, async (root) => {
      const checkpoints = "s3://runs/led";
      const a = await agentProcess(join(root, "a"));
      const b = await agentProcess(join(root, "b"));
      const counts: Promise<number>[] = [];
      const stop = new AbortController();
      const told: string[] = [];
      const onEvent = (event: RunEvent) => {
        if (event.type === "membership") told.push(event.text);
        if (event.type === "checkpoint" && event.step <= 8) {
          counts.push(shards(checkpoints, event.step));
        }
        if (event.type === "checkpoint" && event.step === 8) a.child.kill("SIGKILL");
        if (event.type === "step" && AGAIN.test(told.join())) stop.abort();
      };
      try {
        const hosts = [a.host, b.host];
        const options = { hosts, root, file: "sharded.ts", overrides: { checkpoints } };
        assert.equal(await launch({ ...options, onEvent, signal: stop.signal }), "stopped");
      } finally {
        await Promise.all([a.end(), b.end()]);
      }
      // Nobody has gathered what the other machine holds.
      assert.deepEqual((await Promise.all(counts)).slice(0, 2), [2, 2]);
      assert.match(told.join("\n"), AGAIN);
      const words = ["train", "sharded.ts", "--out", "out", "--checkpoints", checkpoints];
      const sharing = ["--workers", "2", "--threads", "1", "--resume"];
      const there = { cwd: join(root, "c"), env: server.env() };
      const ended = await lockstep([...words, ...sharing], there);
      assert.equal(ended.status, 0, ended.stderr);
      assert.match(ended.stdout, /continuing after step (?:9|1\d|2[0-3])/);
      assert.equal(reportIn(join(root, "c")).weightsSha256, expected);
    }));

  test("a machine is lost while it writes its shard: that checkpoint is dropped, and the run goes on", () =>
    withFolder(machines, async (root) => {
      const checkpoints = "s3://runs/dropped";
      const way = await Way.to(server.endpoint);
      const a = await agentProcess(join(root, "a"));
      Object.assign(process.env, server.env(way.endpoint));
      const b = await agentProcess(join(root, "b"));
      Object.assign(process.env, server.env());
      let saved = 0;
      // The second save of the other machine never ends.
      way.onPiece = () => {
        if (saved === 0) return;
        way.isSilent = true;
        b.child.kill("SIGKILL");
      };
      const notices: string[] = [];
      const onEvent = (event: RunEvent) => {
        if (event.type === "checkpoint") saved ||= event.step;
        if (event.type === "notice") notices.push(event.text);
      };
      try {
        const hosts = [a.host, b.host];
        const options = { hosts, root, file: "guarded.ts", overrides: { checkpoints } };
        assert.equal(await launch({ ...options, onEvent }), "finished");
      } finally {
        await Promise.all([a.end(), b.end(), way.close()]);
      }
      assert.match(
        notices.join("\n"),
        /step 8: no checkpoint was written, and those before are kept/,
      );
      assert.equal(reportIn(join(root, "a")).weightsSha256, expected);
      assert.equal((await store(checkpoints).steps()).at(-1), STEPS);
      const bucket = server.bucket("runs");
      const left = (await bucket.list("dropped/")).filter(({ key }) => key.includes(".tmp/"));
      assert.deepEqual(left, []);
    }));
});
