/** Runs whose checkpoints are in a bucket of a real S3 server: what users do, and what goes wrong. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { openStore } from "../../src/checkpoint/index.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { NO_S3, READER, S3Server, Way } from "../support/s3.ts";
import { type Ended, lockstep, runFiles, type Setting } from "./support.ts";

const files = runFiles({ microBatches: "4", checkpointEvery: "2" });
/** A model whose checkpoint is larger than a few packets. */
const LARGER = runFiles({
  model: "gpt({ layers: 1, width: 128, heads: 2, context: 16 })",
  microBatches: "4",
  checkpointEvery: "1",
  evaluate: "{ every: 100 }",
});

let server: S3Server;

/** Runs a command in a folder, with the credentials of the server. */
async function run(
  words: readonly string[],
  setting: Setting,
  env: Readonly<Record<string, string>> = server.env(),
): Promise<Ended> {
  return lockstep(words, { ...setting, env });
}

async function ok(words: readonly string[], cwd: string): Promise<Ended> {
  const ended = await run(words, { cwd });
  assert.equal(ended.status, 0, ended.stderr + ended.stdout);
  return ended;
}

function stepsIn(place: string): Promise<number[]> {
  return openStore(place, server.env()).steps();
}

function textsIn(folder: string): string {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => readFileSync(path, "latin1"))
    .join("\n");
}

describe("checkpoints in a bucket", { skip: NO_S3 }, () => {
  before(async () => {
    server = await S3Server.start();
    await server.makeBucket("runs");
  });
  after(() => server.stop());

  describe("of a server that is there", { concurrency: 2 }, () => {
    test("a run is resumed, checked, compared and exported from there, on another machine", () =>
      withFolder({}, async (root) => {
        const [here, there] = [join(root, "here"), join(root, "there")];
        for (const cwd of [here, there]) mkdirSync(cwd);
        for (const [name, text] of Object.entries(files)) {
          for (const cwd of [here, there]) writeFileSync(join(cwd, name), text);
        }
        const place = "s3://runs/words";
        const words = ["train", "run.ts", "--threads", "1"];
        await ok([...words, "--out", "whole"], here);
        const sharing = ["--workers", "2", "--out", "out", "--checkpoints", place];
        let isAsked = false;
        const stopped = await run([...words, ...sharing], {
          cwd: here,
          onOutput: (stdout, child) => {
            if (!isAsked && stdout.includes("step 1/")) isAsked = child.kill("SIGINT");
          },
        });
        assert.equal(stopped.status, 130, stopped.stderr + stopped.stdout);
        assert.ok(!readdirSync(join(here, "out")).includes("checkpoints"));
        const secret = server.env()["AWS_SECRET_ACCESS_KEY"] as string;
        const shown = stopped.stdout + stopped.stderr + textsIn(join(here, "out"));
        assert.ok(!shown.includes(secret));

        // Over an unfinished run no other begins by accident.
        const again = await run([...words, ...sharing.slice(2)], { cwd: there });
        assert.match(
          again.stderr,
          /"s3:\/\/runs\/words" holds a run that is not finished.*\[RUN_EX/s,
        );

        const { stdout } = await ok(["resume", place], there);
        assert.match(stdout, /^run\.ts, continued in out\n/);
        assert.match(stdout, /continuing after step \d/);
        assert.equal(
          reportOf(join(there, "out")).weightsSha256,
          reportOf(join(here, "whole")).weightsSha256,
        );
        assert.deepEqual((await stepsIn(place)).at(-1), 6);
        assert.equal((await stepsIn(place)).length, 2);

        const listed = await ok(["checkpoints", place, "--verify"], there);
        assert.match(listed.stdout, /step 6 +[\d.]+ kB +loss .*, whole\n/);
        // The folder of the run knows where its checkpoints are.
        const [one = 0, other = 0] = await stepsIn(place);
        const diff = ["checkpoints", "out", "--diff", String(one), String(other)];
        const { stdout: compared } = await ok(diff, there);
        assert.match(compared, /the same model, data and options\n(\d+) of \1 tensors differ/);
        await ok(["export", place, "--to", "model.onnx"], there);
        const [exported, written] = ["model.onnx", "out/model.onnx"].map((name) =>
          readFileSync(join(there, name)),
        );
        assert.deepEqual(exported, written);
        // A run that begins where another has ended leaves it what it has.
        await ok([...words, "--out", "out", "--checkpoints", place, "--steps", "2"], there);
        assert.deepEqual(await stepsIn(place), [2]);
        assert.deepEqual((await stepsIn(`${place}/earlier-1`)).at(-1), 6);
      }));

    test("a second run on the same prefix is refused while the first goes on", () =>
      withFolder(files, async (cwd) => {
        const words = ["train", "run.ts", "--threads", "1", "--checkpoints", "s3://runs/one"];
        let other: Promise<Ended> | undefined;
        const first = await run([...words, "--out", "a", "--steps", "1000000"], {
          cwd,
          onOutput: (stdout, child) => {
            if (other !== undefined || !stdout.includes("step 1/")) return;
            other = run([...words, "--out", "b", "--anew"], { cwd });
            void other.then(() => child.kill("SIGINT"));
          },
        });
        const refused = await other;
        assert.equal(first.status, 130, first.stderr);
        assert.notEqual(refused?.status, 0, refused?.stdout);
        assert.match(
          refused?.stderr ?? "",
          /Checkpoints are being written to "s3:\/\/runs\/one" by process \d+.*\[RUN_LOCKED\]/s,
        );
        assert.ok(((await stepsIn("s3://runs/one")).at(-1) ?? 0) > 1);
      }));

    test("an object that was changed is named, and the checkpoint before is used", () =>
      withFolder(files, async (cwd) => {
        const place = "s3://runs/damaged";
        const words = ["train", "run.ts", "--threads", "1", "--steps", "6"];
        await ok([...words, "--out", "out", "--checkpoints", place], cwd);
        const bucket = server.bucket("runs");
        const [shard] = (await bucket.list("damaged/step-6/")).filter(({ key }) =>
          /rank/.test(key),
        );
        const bytes = Buffer.from((await bucket.get(shard?.key ?? "")) ?? []);
        bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1;
        await bucket.put(shard?.key ?? "", bytes);
        const checked = await run(["checkpoints", place, "--verify"], { cwd });
        assert.equal(checked.status, 1);
        assert.match(checked.stdout, /step 6 +damaged: its shard "s3:\/\/runs\/damaged\/step-6\//);
        const { stdout } = await ok(["resume", place, "--steps", "7", "--change", "steps"], cwd);
        const told = stdout.replace(/\s+/g, " ");
        assert.match(
          told,
          /step-6" is damaged: its shard ".*" is not as it was written\. The run continues from the checkpoint of step 4, and the other is kept as s3:\/\/runs\/damaged\/aside-step-6/,
        );
        assert.match(stdout, /continuing after step 4/);
        await bucket.put("damaged/step-7/manifest.json", "{}");
        const edited = await run(["checkpoints", place], { cwd });
        assert.match(edited.stdout, /step 7 .*manifest\.json" is damaged/);
      }));

    test("no credentials, wrong ones, another bucket, no server: an error before the first step", () =>
      withFolder(files, async (cwd) => {
        const words = ["train", "run.ts", "--threads", "1"];
        const cases: [string, Record<string, string>, RegExp][] = [
          [
            "s3://runs/x",
            { ...server.env(), AWS_ACCESS_KEY_ID: "" },
            /ACCESS_KEY_ID is not set.*INVALID_OPT/s,
          ],
          [
            "s3://nowhere/x",
            server.env(),
            /has no such bucket.*\n.*AWS_ENDPOINT_URL_S3.*\[STORE\]/,
          ],
          [
            "s3://runs/x",
            { ...server.env(), AWS_SECRET_ACCESS_KEY: "wrong" },
            /does not accept the credentials \(SignatureDoesNotMatch\).*\[STORE\]/s,
          ],
          [
            "s3://runs/x",
            { ...server.env(), AWS_ENDPOINT_URL_S3: "http://127.0.0.1:9" },
            /http:\/\/127\.0\.0\.1:9 (?:accepts no connection|cannot be reached).*\[STORE\]/s,
          ],
          ["s3://runs//x", server.env(), /must be a place such as s3:\/\/bucket\/prefix/],
        ];
        const ended = await Promise.all(
          cases.map(([place, env], index) => {
            const out = ["--checkpoints", place, "--out", `out-${index}`];
            return run([...words, ...out], { cwd }, env);
          }),
        );
        for (const [index, { status, stderr, stdout }] of ended.entries()) {
          assert.notEqual(status, 0, stdout);
          assert.match(stderr, cases[index]?.[2] as RegExp);
          assert.doesNotMatch(stdout, /step 1\//);
        }
      }));

    test("credentials that may only read: the run says so, and keeps its weights", () =>
      withFolder(files, async (cwd) => {
        const env = server.env(server.endpoint, READER);
        const words = ["train", "run.ts", "--threads", "1", "--out", "out"];
        const { status, stdout, stderr } = await run(
          [...words, "--checkpoints", "s3://runs/read"],
          { cwd },
          env,
        );
        assert.equal(status, 1, stdout);
        const told = stdout.replace(/\s+/g, " ");
        assert.match(told, /no checkpoint was written.*these credentials do not permit it/);
        assert.match(stdout, /step 6\/6/);
        assert.match(stderr, /do not permit it.*\[STORE\]/s);
        assert.ok(readdirSync(join(cwd, "out")).includes("model.safetensors"));
      }));

    test("a slow server: training waits for the checkpoint before, and says so", () =>
      withFolder(LARGER, async (cwd) => {
        const way = await Way.to(server.endpoint);
        way.rate = 1_500_000;
        try {
          const words = ["train", "run.ts", "--threads", "1", "--steps", "3", "--checkpoints"];
          const setting = { cwd };
          const { stdout } = await run(
            [...words, "s3://runs/slow"],
            setting,
            server.env(way.endpoint),
          );
          const told = stdout.replace(/\s+/g, " ");
          assert.match(told, /training waited \d+\.\d s until the checkpoint before was written/);
          assert.deepEqual((await stepsIn("s3://runs/slow")).at(-1), 3);
        } finally {
          await way.close();
        }
      }));
  });

  test("a server that is killed in the middle of a save: training goes on, and the next save tries again", () =>
    withFolder(LARGER, async (cwd) => {
      const place = "s3://runs/killed";
      const words = ["train", "run.ts", "--threads", "1", "--steps", "12", "--out", "out"];
      const way = await Way.to(server.endpoint);
      let isKilled = false;
      let again: Promise<void> | undefined;
      // In the middle of the second shard or a later one.
      let carried = 0;
      way.onPiece = (bytes) => {
        carried += bytes;
        if (isKilled || carried < 4_000_000) return;
        isKilled = true;
        void server.kill();
      };
      try {
        const { status, stdout, stderr } = await run(
          [...words, "--checkpoints", place],
          {
            cwd,
            onOutput: (text) => {
              if (text.includes("no checkpoint was written")) again ??= server.run();
            },
          },
          server.env(way.endpoint),
        );
        await again;
        assert.ok(isKilled);
        assert.equal(status, 0, stderr + stdout);
        const told = stdout.replace(/\s+/g, " ");
        assert.match(
          told,
          /step \d+: no checkpoint was written, and those before are kept\. Cannot/,
        );
        assert.match(stdout, /step 12\/12/);
        assert.deepEqual((await stepsIn(place)).at(-1), 12);
        await ok(["checkpoints", place, "--verify"], cwd);
        const left = await server.bucket("runs").list("killed/.step-");
        assert.deepEqual(left, []);
      } finally {
        await way.close();
      }
    }));
});
