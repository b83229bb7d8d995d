/**
 * Launchers that know the token and ask for more than they may have, and agents that answer with
 * anything.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { startAgent } from "../src/agent/index.ts";
import { LockstepError } from "../src/errors.ts";
import { openHead, sealHead } from "../src/job/head.ts";
import { type JobFiles, type JobHead, openJob } from "../src/job/index.ts";
import { atMost } from "../src/launch/index.ts";
import { type Line, listenTcp, serveLines } from "../src/net/index.ts";
import { AGENT_PROTOCOL } from "../src/protocol/agent-messages.ts";
import { withFolder } from "./support/folder.ts";
import {
  answerTo,
  dial,
  files,
  jobMessage,
  LOCAL,
  launch,
  offer,
  rejectsWith,
  token,
  withAgents,
} from "./support/hosts.ts";
import { jobOfFile } from "./support/jobs.ts";
import { randomSource } from "./support/random.ts";
import { WORDS } from "./support/runs.ts";

const onPosix = process.platform === "win32" ? { skip: "makes links and pipes" } : {};

const gptJob = (root: string) => jobOfFile({ file: join(root, "gpt.ts"), root });

test(
  "a job writes only below the agent's folder, and reads data only below its data roots, after following links",
  onPosix,
  () =>
    withFolder({ ...files, "far/secret.txt": WORDS, "data/words.txt": WORDS }, async (root) => {
      const folder = join(root, "agent");
      const data = join(root, "data");
      mkdirSync(folder);
      symlinkSync(join(root, "far"), join(folder, "away"));
      symlinkSync(join(root, "nowhere"), join(folder, "dangling"));
      symlinkSync(join(root, "far", "secret.txt"), join(data, "linked.txt"));
      symlinkSync("/dev/zero", join(data, "zero.txt"));
      execFileSync("mkfifo", [join(data, "pipe.txt")]);
      const agent = await startAgent({ ...LOCAL, folder, dataRoots: [data] });
      const { address } = agent;
      const good = await gptJob(root);
      const naming = (place: string) => resealed(good, place);
      try {
        for (const out of ["away", "away/deep/er", "dangling/deep"]) {
          const answer = await answerTo(address, jobMessage(good, { out }), good);
          assert.match(answer, /"kind":"refused".*leads out of the folder/);
          assert.match(answer, /"code":"RUN_FOLDER"/);
        }
        for (const place of ["/etc/passwd", "../far/secret.txt", "a/../../far/*", "{a,../far}/*"]) {
          const job = naming(place);
          const answer = await answerTo(address, jobMessage(job), job);
          assert.match(answer, /"kind":"refused".*is not below the data roots/);
          assert.match(answer, /"code":"DATA_PLACE"/);
        }
        for (const [place, code] of [
          ["linked.txt", "DATA_PLACE"],
          ["l*.txt", "DATA_PLACE"],
          ["zero.txt", "DATA_PLACE|DATA_EMPTY"],
          ["pipe.txt", "IO_FAILED|DATA_EMPTY"],
          ["gone.txt", "DATA_EMPTY"],
        ] as const) {
          const running = launch({ hosts: [address], root: folder, job: naming(place) });
          await assert.rejects(running, (error) => {
            assert.ok(error instanceof LockstepError, String(error));
            assert.match(error.code, new RegExp(`^(?:${code})$`), error.message);
            assert.ok(place === "linked.txt" || !error.message.includes("linked"), error.message);
            return true;
          });
          assert.ok(!existsSync(join(folder, "out")), place);
        }
        assert.equal(await launch({ hosts: [address], root: folder, job: good }), "finished");
      } finally {
        await agent.close();
      }
    }),
);

/** Returns a valid job that names another place of data, sealed like ours. */
function resealed(job: JobFiles, place: string): JobFiles {
  const head = JSON.parse(Buffer.concat(job.get("job.json") ?? []).toString()) as JobHead;
  const source = { ...head.data.source, globs: [place] };
  const { bytes } = sealHead({ ...head, data: { folder: "", source } });
  return new Map([...job, ["job.json", [bytes]]]);
}

test("a job that was changed on its way is refused, whichever file it was, and leaves no file", () =>
  withFolder({ ...files, "temporary/kept": "" }, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const good = await gptJob(folder);
      const temporary = join(folder, "temporary");
      const before = process.env["TMPDIR"];
      process.env["TMPDIR"] = temporary;
      try {
        await refuseChanged(address, good);
        for (let tries = 0; tries < 100 && readdirSync(temporary).length > 1; tries++) {
          await pause(100);
        }
        assert.deepEqual(readdirSync(temporary), ["kept"]);
      } finally {
        if (before === undefined) delete process.env["TMPDIR"];
        else process.env["TMPDIR"] = before;
      }
    }),
  ));

async function refuseChanged(address: string, good: JobFiles): Promise<void> {
  for (const name of good.keys()) {
    const bad = Buffer.concat(good.get(name) ?? []);
    const at = Math.floor(bad.length / 2);
    bad[at] = (bad[at] as number) ^ 1;
    const job = new Map([...good, [name, [bad]]]);
    const answer = await answerTo(address, jobMessage(job), job);
    assert.match(answer, /"kind":"refused".*FILE_CORRUPT/, name);
    assert.ok(answer.includes(name), answer);
  }
  const short = new Map([...good].slice(0, -1));
  assert.match(await answerTo(address, jobMessage(short), short), /refused.*FILE_NOT_FOUND/);
  const { files: announced } = jobMessage(good) as { readonly files: readonly object[] };
  const twice = { files: [...announced, announced[0]] };
  const longer: JobFiles = new Map([...good, ["more.onnx", good.get("job.json") ?? []]]);
  assert.match(await answerTo(address, jobMessage(good, twice), longer), /"kind":"refused"/);
  assert.match(await answerTo(address, jobMessage(good), longer), /"kind":"refused".*PROTOCOL/);
  assert.match(await answerTo(address, jobMessage(good), good), /accepted/);
}

test("a graph that does not fit its job ends the workers before they meet, and not the agent", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const good = await gptJob(folder);
      const head = JSON.parse(Buffer.concat(good.get("job.json") ?? []).toString()) as JobHead;
      const [name = ""] = Object.keys(head.files);
      const junk = Buffer.alloc(5000, 7);
      const sha256 = createHash("sha256").update(junk).digest("hex");
      const changed = { ...head.files, [name]: { bytes: junk.length, sha256 } };
      const { bytes } = sealHead({ ...head, files: changed });
      const job = new Map([...good, ["job.json", [bytes]], [name, [junk]]]) as JobFiles;
      const running = launch({ hosts: [address], root: folder, job });
      await rejectsWith(running, "ONNX_PARSE", address, name);
      assert.ok(!existsSync(join(folder, "out")));
      assert.equal(await launch({ hosts: [address], root: folder, job: good }), "finished");
    }),
  ));

test("a job cannot have more workers, threads, ranks, bytes and names than allowed", () =>
  withFolder(files, async (folder) => {
    const agent = await startAgent({ ...LOCAL, folder, maxJobBytes: 2 ** 20 });
    const { address } = agent;
    const job = await gptJob(folder);
    const refusals: readonly [Readonly<Record<string, unknown>>, RegExp][] = [
      [{ own: 4096 }, /at most \d+ workers.*4096 were asked for.*--max-workers/],
      [{ threads: 4096 }, /4096 threads/],
      [{ own: 0 }, /own/],
      [{ group: "../../x" }, /group/],
      [{ group: "g".repeat(65) }, /group/],
      [{ overrides: { batch: 4 } }, /batch/],
      [{ out: "a/".repeat(3000) }, /out/],
      [{ files: [{ name: "job.json", bytes: 2 ** 20 + 1 }] }, /takes 1048576 at most.*--max-job/],
      [{ files: [{ name: "../job.json", bytes: 1 }] }, /files/],
      [{ files: [] }, /files/],
      [{ file: "gpt.ts", sha256: "0".repeat(64) }, /file/],
    ];
    try {
      for (const [fields, expected] of refusals) {
        assert.match(await answerTo(address, jobMessage(job, fields), job), expected);
      }
    } finally {
      await agent.close();
    }
  }));

/** Offers a job to an agent that answers each message with this. Returns what the launcher reports. */
async function saidOf(
  job: JobFiles,
  root: string,
  answer: (line: Line, kind: unknown) => void,
): Promise<LockstepError> {
  const listener = await listenTcp(LOCAL);
  serveLines(listener, (line) => {
    const message = (value: unknown) => answer(line, (value as { readonly kind?: unknown }).kind);
    line.handler = { message, closed: () => undefined };
  });
  try {
    const running = launch({ hosts: [listener.address], root, job, deadlineMs: 1000 });
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

const said = (message: object, worker = 0) => ({ kind: "said", worker, message });
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

test("an agent that sends an impossible message is named", () =>
  withFolder(files, async (root) => {
    const accepted = { kind: "accepted" };
    const error = { code: "RUN_FILE", text: "no", fields: {} };
    const ended = { kind: "ended", worker: 0, status: 0, signal: null, words: "" };
    const faults: readonly (readonly unknown[])[] = [
      [said({ kind: "event", event: step })],
      [accepted, accepted],
      [accepted, { kind: "refused", error }],
      [accepted, said({ kind: "event", event: { type: "started" } })],
      [accepted, said({ kind: "event", event: { ...step, loss: {} } })],
      [accepted, said({ kind: "event", event: { type: "constructor" } })],
      [accepted, said({ kind: "event", event: null })],
      [accepted, said({ kind: "ready", generation: 0, step: 0, port: 1 }, 7)],
      [accepted, said({ kind: "ready", generation: 0, step: 0, port: 70_000 })],
      [accepted, { kind: "signs", alive: [{ worker: 1 }], stopped: [] }],
      [accepted, { kind: "more", pieces: 1 }],
      [{ kind: "more", pieces: 1e6 }],
      [accepted, { ...ended, worker: 1 }],
      [accepted, ended, ended],
      [accepted, { ...ended, signal: "\u001b[2J" }],
      [accepted, said({ kind: "error", error: { text: 1 } })],
      [accepted, said({ kind: "error", error: { ...error, code: "\u001b[2J" } })],
      [accepted, said({ kind: "error", error: { ...error, fields: { a: { b: 1 } } } })],
      [accepted, { kind: "launch" }],
      [{ kind: "accepted", more: 1 }],
    ];
    const job = await gptJob(root);
    for (const messages of faults) {
      const { code, message } = await saidOf(job, root, (line, kind) => {
        for (const each of kind === "job" ? messages : []) tell(line, each as object);
      });
      assert.equal(code, "PROTOCOL", `${JSON.stringify(messages)}: ${message}`);
    }
  }));

test("garbage in otherwise valid messages of agents always gives an error of ours", () =>
  withFolder(files, async (root) => {
    const random = randomSource(7);
    const good: readonly object[] = [
      { kind: "accepted" },
      said({ kind: "ready", generation: 0, step: 0, port: 4100 }),
      said({ kind: "lost", generation: 1, rank: 0 }),
      said({ kind: "event", event: step }),
      said({
        kind: "event",
        event: { type: "stopped", step: 1, steps: 2, out: "o", files: ["a"] },
      }),
      said({
        kind: "event",
        event: { type: "changed", step: 1, changes: [{ name: "a", before: "b", now: "c" }] },
      }),
      said({ kind: "error", error: { code: "RUN_FILE", text: "no", fields: { a: [1] } } }),
      {
        kind: "signs",
        alive: [{ worker: 0, progress: { doing: "other", stillMs: 0 } }],
        stopped: [0],
      },
      { kind: "ended", worker: 0, status: 1, signal: null, words: "no" },
    ];
    const job = await gptJob(root);
    for (let round = 0; round < 40; round++) {
      const messages = Array.from({ length: 6 }, () => {
        const message = good[Math.floor(random() * good.length)] as object;
        return random() < 0.5 ? message : (spoilt(message, random) as object);
      });
      const { code } = await saidOf(job, root, (line, kind) => {
        if (kind === "job") tell(line, { kind: "accepted" });
        if (kind !== "start") return;
        for (const message of messages) tell(line, message);
        tell(line, { kind: "launch" });
      });
      assert.match(code, /PROTOCOL|RUN_FILE|PEER_FAILED|PEER_LOST/);
    }
  }));

const JUNK = [null, -1, 1e300, "", "\u001b[31m", "x".repeat(30_000), [], {}, true, [[[[]]]]];

/** Returns the value with a part of it replaced or removed. */
function spoilt(value: unknown, random: () => number): unknown {
  const keys = typeof value === "object" && value !== null ? Object.keys(value) : [];
  if (keys.length === 0 || random() < 0.2) return JUNK[Math.floor(random() * JUNK.length)];
  const key = keys[Math.floor(random() * keys.length)] as string;
  const copy = structuredClone(value) as Record<string, unknown>;
  if (random() < 0.2) delete copy[key];
  else copy[key] = spoilt(copy[key], random);
  return copy;
}

test("garbage in jobs is refused, and the agent stays usable", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const random = randomSource(11);
      const good = await gptJob(folder);
      const message = jobMessage(new Map([["job.json", [Buffer.from("{}\n")]]]), {
        changes: ["seed"],
        threads: 1,
      });
      for (let round = 0; round < 60; round++) {
        const files = new Map([["job.json", [Buffer.from(random() < 0.5 ? "{}\n" : "{{{")]]]);
        const answer = await answerTo(address, spoilt(message, random), files);
        assert.match(answer, /"kind":"refused"/);
      }
      assert.match(await answerTo(address, { ...message, kind: "stop" }), /refused/);
      assert.match(await answerTo(address, jobMessage(good), good), /accepted/);
    }),
  ));

test("garbage in job.json is refused with a code, even if it is sealed like ours", () =>
  withFolder(files, async (folder) => {
    const random = randomSource(13);
    const good = await gptJob(folder);
    const head = JSON.parse(Buffer.concat(good.get("job.json") ?? []).toString()) as JobHead;
    const bytesOf = (name: string) => Buffer.concat(good.get(name) ?? []);
    let refused = 0;
    for (let round = 0; round < 400; round++) {
      const { sha256: _, ...bad } = { ...(spoilt(head, random) as JobHead) };
      try {
        const read = openHead(sealHead(bad).bytes, head.version);
        openJob({ head: read, bytes: bytesOf }).check();
      } catch (error) {
        refused++;
        assert.ok(error instanceof LockstepError, `${String(error)}\n${(error as Error).stack}`);
      }
    }
    assert.ok(refused > 200, `${refused}`);
  }));

test("a launcher of an earlier term learns from an agent that another one leads the run", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const job = await gptJob(folder);
      const first = await dial(address);
      await new Promise<void>((resolve) => {
        const heard = ({ kind }: { readonly kind?: string }) => kind === "accepted" && resolve();
        void offer(first, jobMessage(job, { term: 1, awaitMs: 60_000 }), job, heard);
      });
      const second = await dial(address);
      await new Promise((resolve) => {
        second.handler = { message: resolve, closed: () => undefined };
        tell(second, { kind: "take-over", group: "g", term: 2 });
      });
      const answer = await answerTo(address, jobMessage(job, { term: 1 }), job);
      assert.match(answer, /"kind":"refused".*"code":"FENCED".*of term 2, leads the run/);
    }),
  ));

test("an agent that is asked to end, and whose launcher vanishes then, waits for no other", () =>
  withFolder(files, async (folder) => {
    const agent = await startAgent({ ...LOCAL, folder });
    const job = await gptJob(folder);
    const line = await dial(agent.address);
    const drained = new Promise<void>((resolve) => {
      let isDraining = false;
      void offer(line, jobMessage(job, { awaitMs: 600_000 }), job, ({ kind }) => {
        if (kind === "accepted") tell(line, { kind: "start", worker: 0 });
        if (kind !== "signs" || isDraining) return;
        isDraining = true;
        void agent.drain().then(resolve);
        line.close();
      });
    });
    try {
      assert.equal(await atMost(60_000, drained), undefined, "its worker has stopped");
    } finally {
      await agent.close();
    }
  }));

/**
 * Code that looks around in every process that starts, and sends messages out of turn as a worker.
 */
const CURIOUS = `
import { writeFileSync } from "node:fs";
if (process.send !== undefined) {
  writeFileSync(process.env.SEEN, JSON.stringify([process.argv, process.execArgv, process.env]));
  process.send({ kind: "event", event: { type: "x" } });
}`;

test("a worker has the token neither in its command line nor in its environment, and is named when it sends a message out of turn", () =>
  withFolder({ ...files, "curious.mjs": CURIOUS }, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const job = await gptJob(folder);
      process.env["LOCKSTEP_TOKEN"] = token;
      process.env["SEEN"] = join(folder, "seen.txt");
      process.env["NODE_OPTIONS"] = `--import=${pathToFileURL(join(folder, "curious.mjs")).href}`;
      try {
        const running = launch({ hosts: [host], root: folder, job });
        await rejectsWith(running, "PROTOCOL", host, "worker 0 sent");
      } finally {
        for (const name of ["LOCKSTEP_TOKEN", "SEEN", "NODE_OPTIONS"]) delete process.env[name];
      }
      const seen = readFileSync(join(folder, "seen.txt"), "utf8");
      assert.ok(seen.includes("worker-start") && !seen.includes(token), seen);
    }),
  ));
