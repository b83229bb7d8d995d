/**
 * Launchers that are killed while workers of agents train, and started again: real processes on this
 * machine's loopback.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { openFolderStore } from "../src/durable/index.ts";
import { writeJob } from "../src/job/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { withFolder } from "./support/folder.ts";
import {
  type AgentProcess,
  agentProcess,
  files,
  GPT,
  joinProcess,
  type Launch,
  launch,
  reportIn,
  withAgents,
} from "./support/hosts.ts";
import { jobOfFile } from "./support/jobs.ts";
import { WORDS } from "./support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };
const module = new URL("support/hosts.js", import.meta.url).href;
const run = GPT.replace("microBatches: 4", "microBatches: 8");
const machines = { ...files, "gpt.ts": run, "a/words.txt": WORDS, "b/words.txt": WORDS };

/** What a launcher says last that finds its successor: in the store of its state, or by an agent. */
const FENCED =
  /^FENCED (This coordinator \(term 1\) no longer leads the run|On .*: Another launcher, of term 2, leads)/;

class Launcher {
  readonly events: RunEvent[] = [];
  readonly child: ChildProcess;
  said = "";
  /** Where it listens for machines that join. */
  address = "";

  constructor(options: Launch & { readonly jobFolder: string }) {
    const code = `
      import { readdirSync, readFileSync } from "node:fs";
      const { launch } = await import(${JSON.stringify(module)});
      const { jobFolder, ...options } = ${JSON.stringify(options)};
      const names = readdirSync(jobFolder);
      const job = new Map(names.map((name) => [name, [readFileSync(jobFolder + "/" + name)]]));
      const onEvent = (event) => console.log(JSON.stringify(event));
      try {
        const onListening = (address) => console.log("listening at " + address);
        await launch({ ...options, job, onEvent, onListening });
      } catch (error) {
        console.error(error.code + " " + error.message);
        process.exitCode = 1;
      }`;
    this.child = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      const [, address] = /^listening at (.*)$/.exec(line) ?? [];
      if (address === undefined) this.events.push(JSON.parse(line) as RunEvent);
      else this.address = address;
    });
    this.child.stderr?.on("data", (piece: Buffer) => {
      this.said += piece.toString();
    });
  }

  async kill(): Promise<void> {
    const closed = once(this.child, "close");
    this.child.kill("SIGKILL");
    await closed;
  }

  async ended(): Promise<number | null> {
    const { exitCode } = this.child;
    if (exitCode !== null) return exitCode;
    const [status] = (await once(this.child, "close")) as [number | null];
    return status;
  }

  get told(): string {
    return this.events
      .flatMap((event) => ("text" in event && typeof event.text === "string" ? [event.text] : []))
      .join("\n");
  }
}

/** The last step in the figures that the leading worker writes on its machine. */
function stepsAt(folder: string): number {
  const path = join(folder, "out", "metrics.jsonl");
  if (!existsSync(path)) return 0;
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  const events = lines.map((line) => JSON.parse(line) as RunEvent);
  return events.reduce((last, event) => (event.type === "step" ? event.step : last), 0);
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 60_000; !holds(); ) {
    assert.ok(performance.now() < end, what);
    await delay(20);
  }
}

function childrenOf({ child }: AgentProcess): number[] {
  const path = `/proc/${child.pid}/task/${child.pid}/children`;
  const text = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  return text === "" ? [] : text.split(" ").map(Number);
}

/** Returns a condition: no step was made for a second, many times what a step takes here. */
function standsStill(folder: string): () => boolean {
  let [last, since] = [stepsAt(folder), performance.now()];
  return () => {
    const step = stepsAt(folder);
    if (step !== last) [last, since] = [step, performance.now()];
    return performance.now() - since > 1000;
  };
}

function isStopped(pid: number): boolean {
  return /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}

async function withMachines(
  body: (root: string, agents: readonly [AgentProcess, AgentProcess]) => Promise<void>,
  second = "b",
): Promise<void> {
  await withFolder(machines, async (root) => {
    const a = await agentProcess(join(root, "a"));
    const b = await agentProcess(join(root, second));
    try {
      await body(root, [a, b]);
    } finally {
      await Promise.all([a.end(), b.end()]);
    }
  });
}

const STEPS = 60;
const MORE_STEPS = 200;
const overrides = { checkpointEvery: 20 };
let expected = "";
/** The jobs of all runs here, by their number of steps: made once, because each launcher needs one. */
const jobs = mkdtempSync(join(tmpdir(), "lockstep-test-"));
const jobOf = (steps: number) => join(jobs, String(steps));
before(() =>
  withFolder({ ...files, "gpt.ts": run }, async (root) => {
    for (const steps of [STEPS, MORE_STEPS]) {
      const job = await jobOfFile({
        file: join(root, "gpt.ts"),
        overrides: { ...overrides, steps },
        root,
      });
      mkdirSync(jobOf(steps));
      await writeJob(jobOf(steps), job);
      if (steps !== STEPS) continue;
      await withAgents([root], async (hosts) => {
        assert.equal(await launch({ hosts, root, job }), "finished");
        expected = reportIn(root).weightsSha256;
      });
    }
  }),
);
after(() => rmSync(jobs, { recursive: true, force: true }));

function optionsIn(root: string, agents: readonly AgentProcess[]) {
  const hosts = agents.map(({ host }) => host);
  return { hosts, root, state: join(root, "state"), jobFolder: jobOf(STEPS) };
}

/** Launches a run, and waits until it has begun in the folder of the machine that leads. */
async function begun(root: string, options: ReturnType<typeof optionsIn> & Partial<Launch>) {
  const folder = join(root, "a");
  const first = new Launcher(options);
  await until("the run begins", () => stepsAt(folder) >= 5);
  return { first, folder };
}

async function killAndWatch(first: Launcher, folder: string): Promise<void> {
  await first.kill();
  const alone = stepsAt(folder);
  await until("workers go on without a launcher", () => stepsAt(folder) >= alone + 5);
}

test(
  "workers go on without a launcher; one that is killed meanwhile is replaced by the next launcher",
  onLinux,
  () =>
    withMachines(async (root, agents) => {
      const options = { ...optionsIn(root, agents), workers: 2 };
      const { first, folder } = await begun(root, options);
      await killAndWatch(first, folder);
      // Now the run stands still, because nobody replaces this worker.
      process.kill(childrenOf(agents[1])[0] ?? 0, "SIGKILL");
      const second = new Launcher(options);
      await until("the second launcher has come", () => second.told.includes("The run goes on"));
      await assert.rejects(openFolderStore(join(root, "state")), {
        code: "RUN_LOCKED",
        message: /^A run is being led from/,
      });
      assert.equal(await second.ended(), 0, second.said);
      assert.match(second.told, /The run goes on after step \d+ with \d of 4 workers/);
      assert.match(second.told, /was lost/);
      assert.match(second.told, /Generation 2 begins after step \d+ with workers 0, 1/);
      assert.equal(stepsAt(folder), STEPS);
      assert.equal(reportIn(folder).weightsSha256, expected);
    }),
);

test(
  "a machine that has joined goes on without the launcher, and the next launcher takes it back",
  onLinux,
  () =>
    withMachines(async (root, [a, b]) => {
      await b.end();
      const jobFolder = jobOf(MORE_STEPS);
      const most = { maxWorkers: 3, minWorkers: 3 };
      const shared = { ...optionsIn(root, [a]), ...most, listen: "127.0.0.1:0", jobFolder };
      const first = new Launcher(shared);
      await until("the launcher listens", () => first.address !== "");
      const guest = joinProcess(first.address, join(root, "b"), ["--workers", "2"]);
      const folder = join(root, "a");
      await until("the run begins", () => stepsAt(folder) >= 5);
      await killAndWatch(first, folder);
      const second = new Launcher(shared);
      assert.equal(await second.ended(), 0, second.said);
      assert.equal(second.address, first.address);
      assert.match(second.told, /The run goes on after step \d+ with 3 of 3 workers/);
      assert.doesNotMatch(second.told, /was lost|Generation 2/);
      assert.equal(await guest.ended, 0, "who joined goes with the end of the run");
      assert.equal(stepsAt(folder), MORE_STEPS);
      assert.equal(reportIn(folder).history.workersLost, 0);
    }),
);

test(
  "without a launcher, a worker is stopped, continued and killed at once: the weights stay right",
  onLinux,
  () =>
    withMachines(async (root, agents) => {
      const options = optionsIn(root, agents);
      const { first, folder } = await begun(root, options);
      await first.kill();
      const [victim = 0] = childrenOf(agents[1]);
      process.kill(victim, "SIGSTOP");
      await until("the worker is stopped", () => isStopped(victim));
      await until("the others wait for it", standsStill(folder));
      // In its last moment the worker may still decide the step in which the others wait.
      process.kill(victim, "SIGCONT");
      process.kill(victim, "SIGKILL");
      const second = new Launcher(options);
      assert.equal(await second.ended(), 0, second.said);
      assert.match(second.told, /was lost/);
      assert.equal(stepsAt(folder), STEPS);
      assert.equal(reportIn(folder).weightsSha256, expected);
    }),
);

test(
  "a launcher whose run another one has taken over is refused, and leaves the workers alone",
  onLinux,
  () =>
    withMachines(async (root, agents) => {
      const options = optionsIn(root, agents);
      const { first, folder } = await begun(root, options);
      const [victim = 0] = childrenOf(agents[1]);
      for (const pid of [first.child.pid as number, victim]) process.kill(pid, "SIGSTOP");
      // As on storage that shares files between machines, but not their locks.
      rmSync(join(root, "state", "run.lock"));
      const second = new Launcher(options);
      await until("the second launcher has come", () => second.told.includes("The run goes on"));
      for (const pid of [first.child.pid as number, victim]) process.kill(pid, "SIGCONT");
      assert.equal(await first.ended(), 1);
      assert.match(first.said, FENCED);
      assert.equal(await second.ended(), 0, second.said);
      assert.match(second.told, /goes on after step \d+ with 2 of 2 workers/);
      assert.doesNotMatch(second.told, /was lost/);
      assert.equal(reportIn(folder).weightsSha256, expected);
    }),
);

test(
  "workers that wait for a launcher in vain stop and save, and the run is resumed",
  onLinux,
  () =>
    withMachines(async (root, agents) => {
      const options = optionsIn(root, agents);
      const { first, folder } = await begun(root, { ...options, awaitMs: 100 });
      await first.kill();
      const isLeft = () => agents.some((agent) => childrenOf(agent).length > 0);
      await until("no worker is left", () => !isLeft());
      assert.ok(stepsAt(folder) < STEPS);
      const second = new Launcher({ ...options, beginning: "resume" });
      assert.equal(await second.ended(), 0, second.said);
      assert.equal(reportIn(folder).weightsSha256, expected);
      // A run is resumed where all machines reach its checkpoint.
    }, "a"),
);
