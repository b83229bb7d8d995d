/** Launchers that know the token and want more than they may have, and agents that answer with anything. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { LockstepError } from "../src/errors.ts";
import { AGENT_PROTOCOL } from "../src/launch/agent-messages.ts";
import { dialLine, type Line, listenTcp, serveLines } from "../src/transport/index.ts";
import { withFolder } from "./support/folder.ts";
import { files, LOCAL, launch, rejectsWith, token, withAgents } from "./support/hosts.ts";
import { randomSource } from "./support/random.ts";

const onPosix = process.platform === "win32" ? { skip: "makes links and pipes" } : {};

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

function jobOf(folder: string, fields: Readonly<Record<string, unknown>> = {}) {
  return {
    v: AGENT_PROTOCOL,
    kind: "job",
    file: "in/gpt.ts",
    sha256: sha256(join(folder, "in", "gpt.ts")),
    out: "out",
    beginning: "anew",
    overrides: { steps: 1 },
    group: "g",
    firstRank: 0,
    own: 1,
    workers: 1,
    ...fields,
  };
}

async function answerTo(address: string, message: unknown): Promise<string> {
  const { signal } = new AbortController();
  const line = await dialLine({ address, token, deadlineMs: 5000, signal });
  return new Promise((resolve) => {
    line.handler = {
      message: (value) => {
        resolve(JSON.stringify(value));
        line.close();
      },
      closed: (why) => resolve(why),
    };
    line.send(message);
  });
}

test(
  "a job reads and writes regular files below the agent's folder only, and nothing is told of others",
  onPosix,
  () =>
    withFolder(
      {
        "in/gpt.ts": files["gpt.ts"],
        "words.txt": "x",
        "far/secret.ts": "hush",
        "far/gpt.ts": files["gpt.ts"],
      },
      (root) => {
        const folder = join(root, "agent");
        mkdirSync(join(folder, "in"), { recursive: true });
        writeFileSync(join(folder, "in", "gpt.ts"), files["gpt.ts"]);
        symlinkSync("/dev/zero", join(folder, "zero.ts"));
        symlinkSync(join(root, "far"), join(folder, "away"));
        symlinkSync(join(root, "nowhere"), join(folder, "dangling"));
        symlinkSync(join(root, "far", "gpt.ts"), join(folder, "in", "linked.ts"));
        execFileSync("mkfifo", [join(folder, "pipe.ts")]);
        mkdirSync(join(folder, "folder.ts"));
        writeFileSync(join(folder, "large.ts"), "");
        truncateSync(join(folder, "large.ts"), 2 ** 25);
        writeFileSync(join(folder, "other.ts"), "// other");
        return withAgents([folder], async ([address = ""]) => {
          const refusals: readonly [Readonly<Record<string, unknown>>, RegExp][] = [
            [{ file: "zero.ts" }, /leads out of the folder/],
            [{ file: "away/gpt.ts" }, /leads out of the folder/],
            [{ file: "in/linked.ts" }, /leads out of the folder/],
            [
              { file: "away/secret.ts", sha256: sha256(join(root, "far", "secret.ts")) },
              /leads out/,
            ],
            [{ file: "dangling" }, /no run file/],
            [{ file: "pipe.ts" }, /no regular file/],
            [{ file: "folder.ts" }, /no regular file/],
            [{ file: "large.ts" }, /larger than/],
            [{ file: "other.ts" }, /is another one here/],
            [{ out: "away" }, /leads out of the folder/],
            [{ out: "away/deep/er" }, /leads out of the folder/],
            [{ out: "dangling/deep" }, /leads out of the folder/],
          ];
          for (const [fields, expected] of refusals) {
            const answer = await answerTo(address, jobOf(folder, fields));
            assert.match(answer, expected);
            assert.match(answer, /"kind":"refused".*"code":"(RUN_FILE|FILE_NOT_FOUND)"/);
            assert.ok(!answer.includes(sha256(join(folder, "other.ts")).slice(0, 12)), answer);
          }
          assert.match(await answerTo(address, jobOf(folder)), /accepted/);
        });
      },
    ),
);

test("a job has no more workers, threads, ranks and names than fit", () =>
  withFolder({ "in/gpt.ts": files["gpt.ts"] }, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const refusals: readonly [Readonly<Record<string, unknown>>, RegExp][] = [
        [{ own: 4096, workers: 4096 }, /at most \d+ workers.*4096 were asked for.*--max-workers/],
        [{ threads: 4096 }, /4096 threads/],
        [{ own: 2, workers: 3 }, /do not fit/],
        [{ firstRank: 1, workers: 1 }, /do not fit/],
        [{ group: "../../x" }, /group/],
        [{ group: "g".repeat(65) }, /group/],
        [{ overrides: { batch: 2 ** 40 } }, /batch/],
        [{ file: "a/".repeat(3000) }, /file/],
      ];
      for (const [fields, expected] of refusals) {
        assert.match(await answerTo(address, jobOf(folder, fields)), expected);
      }
    }),
  ));

/** Agents of one program each, that answer a job so; what the launcher says of it. */
async function saidOf(root: string, answer: (line: Line) => void): Promise<LockstepError> {
  const listener = await listenTcp(LOCAL);
  serveLines(listener, (line) => {
    line.handler = { message: () => answer(line), closed: () => undefined };
  });
  try {
    const running = launch({ hosts: [listener.address], root, deadlineMs: 1000 });
    const error = await running.then(
      () => assert.fail("it ended well"),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof LockstepError, String(error));
    assert.ok(error.message.includes(listener.address), error.message);
    return error;
  } finally {
    listener.close();
  }
}

const tell = (line: Line, message: object) => line.send({ v: AGENT_PROTOCOL, ...message });
const step = {
  type: "step",
  step: 1,
  steps: 2,
  loss: 1,
  gradientNorm: 1,
  learningRate: 1,
  samplesPerSecond: 1,
  secondsLeft: 1,
};

test("an agent that says what none would say is named, whatever it is", () =>
  withFolder(files, async (root) => {
    const accepted = { kind: "accepted" };
    const error = { code: "RUN_FILE", text: "no", fields: {} };
    const faults: readonly (readonly unknown[])[] = [
      [{ kind: "event", event: step }],
      [accepted, accepted],
      [accepted, { kind: "refused", error }],
      [accepted, { kind: "event", event: { type: "started" } }],
      [accepted, { kind: "event", event: { ...step, loss: {} } }],
      [accepted, { kind: "event", event: { type: "constructor" } }],
      [accepted, { kind: "event", event: null }],
      [accepted, { kind: "listening", rank: 7, port: 1 }],
      [accepted, { kind: "listening", rank: 0, port: 1 }, { kind: "listening", rank: 0, port: 2 }],
      [accepted, { kind: "ended", rank: 1 }],
      [accepted, { kind: "failed", rank: 0, error: { text: 1 } }],
      [accepted, { kind: "failed", rank: 0, error: { ...error, code: "\u001b[2J" } }],
      [accepted, { kind: "failed", rank: 0, error: { ...error, fields: { a: { b: 1 } } } }],
      [accepted, { kind: "launch" }],
      [{ kind: "accepted", more: 1 }],
    ];
    for (const messages of faults) {
      const { code, message } = await saidOf(root, (line) => {
        for (const each of messages) tell(line, each as object);
      });
      assert.equal(code, "PROTOCOL", `${JSON.stringify(messages)}: ${message}`);
    }
  }));

test("garbage in good messages of agents: an error of ours each time", () =>
  withFolder(files, async (root) => {
    const random = randomSource(7);
    const good: readonly object[] = [
      { kind: "accepted" },
      { kind: "listening", rank: 0, port: 4100 },
      { kind: "event", event: step },
      { kind: "event", event: { type: "stopped", step: 1, steps: 2, out: "o", files: ["a"] } },
      {
        kind: "event",
        event: { type: "changed", step: 1, changes: [{ name: "a", before: "b", now: "c" }] },
      },
      { kind: "failed", rank: 0, error: { code: "RUN_FILE", text: "no", fields: { a: [1] } } },
    ];
    for (let round = 0; round < 40; round++) {
      const messages = Array.from({ length: 6 }, () => {
        const message = good[Math.floor(random() * good.length)] as object;
        return random() < 0.5 ? message : (spoilt(message, random) as object);
      });
      const { code } = await saidOf(root, (line) => {
        tell(line, { kind: "accepted" });
        for (const message of messages) tell(line, message);
        line.close();
      });
      assert.match(code, /PROTOCOL|RUN_FILE|PEER_LOST/);
    }
  }));

const JUNK = [null, -1, 1e300, "", "\u001b[31m", "x".repeat(30_000), [], {}, true, [[[[]]]]];

/** With something in it replaced or taken away. */
function spoilt(value: unknown, random: () => number): unknown {
  const keys = typeof value === "object" && value !== null ? Object.keys(value) : [];
  if (keys.length === 0 || random() < 0.2) return JUNK[Math.floor(random() * JUNK.length)];
  const key = keys[Math.floor(random() * keys.length)] as string;
  const copy = structuredClone(value) as Record<string, unknown>;
  if (random() < 0.2) delete copy[key];
  else copy[key] = spoilt(copy[key], random);
  return copy;
}

test("garbage in jobs is refused, and the agent goes on", () =>
  withFolder({ "in/gpt.ts": files["gpt.ts"] }, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const random = randomSource(11);
      const job = jobOf(folder, { sha256: "0".repeat(64), changes: ["seed"], threads: 1 });
      for (let round = 0; round < 60; round++) {
        assert.match(await answerTo(address, spoilt(job, random)), /"kind":"refused"/);
      }
      assert.match(await answerTo(address, { ...job, kind: "stop" }), /refused/);
      assert.match(await answerTo(address, jobOf(folder)), /accepted/);
    }),
  ));

const CURIOUS = `
import { writeFileSync } from "node:fs";
writeFileSync(new URL("seen.txt", import.meta.url), JSON.stringify([process.argv, process.execArgv, process.env]));
process.send?.({ kind: "event", event: { type: "x" } });
${files["gpt.ts"]}`;

test("a worker has the token neither in its words nor in its environment, and is named when its run file speaks in its place", () =>
  withFolder({ ...files, "gpt.ts": CURIOUS }, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      process.env["LOCKSTEP_TOKEN"] = token;
      try {
        const running = launch({ hosts: [host], root: folder });
        await rejectsWith(running, "PROTOCOL", host, "worker 0 sent");
      } finally {
        delete process.env["LOCKSTEP_TOKEN"];
      }
      const seen = readFileSync(join(folder, "seen.txt"), "utf8");
      assert.ok(!seen.includes(token), seen);
    }),
  ));
