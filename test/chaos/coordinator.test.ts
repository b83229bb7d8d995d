/**
 * `lockstep chaos` kills the launcher and starts it again, alone and together with a worker: the
 * workers go on, and the run ends with the weights of one worker.
 */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { faultsIn } from "../../src/chaos/index.ts";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "agents look at /proc" };
const run = runFiles({
  model: "gpt({ layers: 1, width: 32, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: "600",
  checkpointEvery: "100",
});
// What is due when the launcher is back is done at once.
const FAULTS = [
  { step: 5, kind: "coordinator", seconds: 0 },
  { step: 6, worker: 1, kind: "kill", seconds: 0 },
  { step: 6, kind: "coordinator", seconds: 0 },
];
const files = { ...run, "faults.jsonl": FAULTS.map((one) => `${JSON.stringify(one)}\n`).join("") };
const words = ["run.ts", "--threads", "1"];

function stepsIn(path: string): number[] {
  const lines = readFileSync(path, "utf8").trim().split("\n");
  const events = lines.map((line) => JSON.parse(line) as { type: string; step: number });
  return events.flatMap(({ type, step }) => (type === "step" ? [step] : []));
}

test("the launcher is killed, then again with a worker: the weights of one worker", onLinux, () =>
  withFolder(files, async (cwd) => {
    const one = await lockstep(["train", ...words, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const TMPDIR = join(cwd, "tmp");
    mkdirSync(TMPDIR);
    const chaos = ["chaos", ...words, "--workers", "2", "--replay", "faults.jsonl"];
    const { status, stdout, stderr } = await lockstep(chaos, { cwd, env: { TMPDIR } });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const out = join(cwd, "runs/tiny");
    const { weightsSha256, history } = reportOf(out);
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.match(stdout, new RegExp(`3 faults: 1 workers lost, .*${weightsSha256}`));
    assert.equal(stdout.match(/The run goes on after step/g)?.length, 2, stdout);
    assert.match(stdout, /Fault 1: coordinator, after step \d+[^]*with 2 of 2 workers[^]*Fault 2/);
    assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);
    const path = join(out, "chaos.jsonl");
    const done = faultsIn(readFileSync(path, "utf8"), path).map(({ kind }) => kind);
    assert.deepEqual(done, ["coordinator", "kill", "coordinator"]);
    const steps = stepsIn(join(out, "metrics.jsonl"));
    assert.deepEqual(
      steps,
      Array.from({ length: 600 }, (_, index) => index + 1),
    );
    const left = readdirSync(TMPDIR).filter((name) => name.startsWith("lockstep"));
    assert.deepEqual(left, [], "no state and no job is left");
  }),
);

test("a stop is passed on to the launcher, which saves", onLinux, () =>
  withFolder(run, async (cwd) => {
    let isAsked = false;
    const chaos = ["chaos", ...words, "--workers", "1", "--kinds", "coordinator", "--every", "60s"];
    const { status, stdout, stderr } = await lockstep(chaos, {
      cwd,
      onOutput: (told, child) => {
        if (isAsked || !told.includes("step 1/")) return;
        isAsked = true;
        child.kill("SIGINT");
      },
    });
    assert.equal(status, 130, `${stdout}\n${stderr}`);
    assert.match(stdout, /0 faults \(--chaos-seed \d+\): 0 workers lost/);
    const [saved] = readdirSync(join(cwd, "runs/tiny/checkpoints"));
    assert.ok(saved !== undefined, "the state is saved");
  }),
);

test("what workers of agents cannot have is refused with the reason", () =>
  withFolder(run, async (cwd) => {
    const kinds = ["chaos", "run.ts", "--kinds", "coordinator,bit-flip"];
    const refused = await lockstep(kinds, { cwd });
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /"bit-flip" is not possible with the fault "coordinator": agents/);
    const typed = await lockstep(["chaos-launcher"], { cwd });
    assert.match(typed.stderr, /Only `lockstep chaos` starts this command\. \[INVALID_OPTION\]/);
  }));
