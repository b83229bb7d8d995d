/**
 * Runs over agents whose workers and agents are lost, come back, and join: real processes on this
 * machine's loopback. Each ends with the weights of one undisturbed process.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
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
import { checkpointsOf, WORDS } from "./support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };
const STEPS = 40;
const run = GPT.replace("microBatches: 4", "microBatches: 8");
/** Each machine has its own data and its own folder. */
const machines = {
  ...files,
  "gpt.ts": run,
  "a/words.txt": WORDS,
  "b/words.txt": WORDS,
  "c/words.txt": WORDS,
  "d/words.txt": WORDS.slice(0, 2000),
};

let expected = "";
before(() =>
  withFolder({ ...files, "gpt.ts": run }, (folder) =>
    withAgents([folder], async (hosts) => {
      assert.equal(await launch({ hosts, root: folder, overrides: { steps: STEPS } }), "finished");
      expected = reportIn(folder).weightsSha256;
    }),
  ),
);

function childrenOf({ child }: AgentProcess): number[] {
  const path = `/proc/${child.pid}/task/${child.pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").map(Number) : [];
}

interface Watch {
  /** After which events the deeds are done. Default: `step`. */
  readonly after?: "checkpoint" | "step";
  /** Is given what is told of members. */
  readonly heard?: (text: string) => void;
}

interface Harmed {
  readonly told: string;
  readonly events: readonly RunEvent[];
}

/** Launches a run of `STEPS` steps, and does something after some of them. */
async function launchAnd(
  { after = "step", heard, ...options }: Launch & Watch,
  deeds: Readonly<Record<number, (told: readonly RunEvent[]) => void>>,
): Promise<Harmed> {
  const events: RunEvent[] = [];
  const onEvent = (event: RunEvent) => {
    events.push(event);
    if (event.type === after) deeds[event.step]?.(events);
    if (event.type === "membership") heard?.(event.text);
  };
  const overrides = { steps: STEPS, ...options.overrides };
  assert.equal(await launch({ ...options, overrides, onEvent }), "finished");
  const told = events.flatMap((event) =>
    event.type === "membership" || event.type === "notice" ? [event.text] : [],
  );
  return { told: told.join("\n"), events };
}

/** Starts agents of machines, and ends all that were started at the end. */
async function withMachines(
  names: readonly string[],
  body: (root: string, agents: AgentProcess[]) => Promise<void>,
): Promise<void> {
  await withFolder(machines, async (root) => {
    const agents = await Promise.all(names.map((name) => agentProcess(join(root, name))));
    try {
      await body(root, agents);
    } finally {
      await Promise.all(agents.map((agent) => agent.end()));
    }
  });
}

const hostsOf = (agents: readonly AgentProcess[]) => agents.map(({ host }) => host);

for (const [how, signal, found] of [
  ["killed", "SIGKILL", /killed by SIGKILL/],
  ["stopped", "SIGSTOP", /no sign of life for 1\.5 s, and its process is stopped/],
] as const) {
  test(`a worker of another machine is ${how}: the run goes on to the same weights`, onLinux, () =>
    withMachines(["a", "b"], async (root, agents) => {
      const { told } = await launchAnd(
        { hosts: hostsOf(agents), root, workers: 2 },
        { 5: () => process.kill(childrenOf(agents[1] as AgentProcess)[0] as number, signal) },
      );
      assert.match(told, new RegExp(`Worker 2 \\(host ${agents[1]?.host}\\) was lost at step`));
      assert.match(told, found);
      const { weightsSha256, history } = reportIn(join(root, "a"));
      assert.equal(weightsSha256, expected);
      assert.equal(history.workersLost, 1);
      assert.ok(!existsSync(join(root, "b/out")), "one machine writes the run's folder");
    }),
  );
}

test(
  "an agent that dies with its workers: the run waits for it where it must, and takes them back",
  onLinux,
  () =>
    withMachines(["a", "b"], async (root, agents) => {
      const [a, b] = agents as [AgentProcess, AgentProcess];
      let back: Promise<void> | undefined;
      const { told, events } = await launchAnd(
        { hosts: [a.host, b.host], root, minWorkers: 2 },
        {
          5: () => {
            b.child.kill("SIGKILL");
            back = agentProcess(join(root, "b"), { words: ["--listen", b.host] }).then((agent) => {
              agents.push(agent);
            });
          },
        },
      );
      await back;
      assert.match(told, new RegExp(`The agent on ${b.host} is lost: .* It is dialed again`));
      const sizes = events.flatMap((event) => (event.type === "generation" ? [event.workers] : []));
      assert.deepEqual(sizes, [2]);
      const { weightsSha256, history } = reportIn(join(root, "a"));
      assert.equal(weightsSha256, expected);
      assert.deepEqual([history.workersLost, history.workersJoined], [1, 1]);
    }),
);

test("the machine that leads is lost: another one leads, and writes its own folder", onLinux, () =>
  withMachines(["a", "b"], async (root, agents) => {
    const [a, b] = agents as [AgentProcess, AgentProcess];
    const { told } = await launchAnd(
      {
        hosts: [a.host, b.host],
        root,
        workers: 2,
        overrides: { checkpointEvery: 10 },
        after: "checkpoint",
      },
      { 10: () => a.child.kill("SIGKILL") },
    );
    assert.match(told, /Another machine leads from now on: its folder ".*b\/out"/);
    const report = reportIn(join(root, "b"));
    assert.equal(report.weightsSha256, expected);
    assert.deepEqual(checkpointsOf(join(root, "a/out")), [10]);
    assert.deepEqual(checkpointsOf(join(root, "b/out")), [30, 40]);
  }),
);

test("an agent that is asked to end: its workers leave after a step, and it goes", onLinux, () =>
  withMachines(["a", "b"], async (root, agents) => {
    const [a, b] = agents as [AgentProcess, AgentProcess];
    const { told, events } = await launchAnd(
      { hosts: [a.host, b.host], root },
      { 5: () => void b.child.kill("SIGTERM") },
    );
    await b.end();
    assert.equal(b.child.exitCode, 0);
    assert.match(told, /Worker 1 .* is asked to leave: it got SIGTERM/);
    const sizes = events.flatMap((event) => (event.type === "generation" ? [event.workers] : []));
    assert.deepEqual(sizes, [1]);
    const { weightsSha256, history } = reportIn(join(root, "a"));
    assert.equal(weightsSha256, expected);
    assert.deepEqual([history.workersLost, history.stepsRepeated], [0, 0]);
  }),
);

test("workers beyond the most stand by, and take the places of those that are lost", onLinux, () =>
  withMachines(["a", "b"], async (root, agents) => {
    const [a, b] = agents as [AgentProcess, AgentProcess];
    const { events, told } = await launchAnd(
      { hosts: [a.host, b.host], root, workers: 2, minWorkers: 2, maxWorkers: 2 },
      { 5: () => void a.child.kill("SIGKILL") },
    );
    assert.match(told, /Generation 2 begins after step \d+ with workers 2 and 3/);
    const sizes = events.flatMap((event) => (event.type === "generation" ? [event.workers] : []));
    assert.deepEqual(sizes, [2]);
    assert.equal(reportIn(join(root, "b")).weightsSha256, expected);
  }),
);

test(
  "a machine that joins in the middle takes the place of one that was lost; one with other data is told, and does not end the run",
  onLinux,
  () =>
    withMachines(["a", "b"], async (root, agents) => {
      const [a, b] = agents as [AgentProcess, AgentProcess];
      let address = "";
      let stranger: ReturnType<typeof joinProcess> | undefined;
      let guest: ReturnType<typeof joinProcess> | undefined;
      const { events } = await launchAnd(
        {
          hosts: [a.host, b.host],
          root,
          listen: "127.0.0.1:0",
          onListening: (at) => {
            address = at;
          },
          minWorkers: 3,
          maxWorkers: 8,
          workers: 2,
          heard: (text) => {
            if (guest !== undefined || !/was lost.*The data here is/.test(text)) return;
            stranger?.child.kill("SIGTERM");
            guest = joinProcess(address, join(root, "c"), ["--workers", "1"]);
          },
        },
        {
          5: () => {
            b.child.kill("SIGKILL");
            stranger = joinProcess(address, join(root, "d"), ["--workers", "1"]);
          },
        },
      );
      const sizes = events.flatMap((event) => (event.type === "generation" ? [event.workers] : []));
      assert.deepEqual(sizes, [3]);
      assert.equal(reportIn(join(root, "a")).weightsSha256, expected);
      assert.deepEqual(await Promise.all([guest?.ended, stranger?.ended]), [0, 0]);
    }),
);
