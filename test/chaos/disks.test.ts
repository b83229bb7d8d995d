/** Faults of the disk in a save of real workers: the run says so, and goes on. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { faultsIn } from "../../src/chaos/index.ts";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";

const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: "60",
  checkpointEvery: "10",
});
const FAULTS = [
  [2, 0, "disk-full"],
  [22, 0, "slow-disk"],
]
  .map(([step, worker, kind]) => `${JSON.stringify({ step, worker, kind, seconds: 0 })}\n`)
  .join("");

test("a full disk in a save, then a slow one: the weights of one worker", () =>
  withFolder({ ...run, "faults.jsonl": FAULTS }, async (cwd) => {
    const words = ["run.ts", "--threads", "1"];
    const one = await lockstep(["train", ...words, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const chaos = ["--workers", "2", "--replay", "faults.jsonl"];
    const { status, stdout, stderr } = await lockstep(["chaos", ...words, ...chaos], { cwd });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const refused = stdout.match(/step \d+: no checkpoint was written.*the disk is full/g) ?? [];
    assert.equal(refused.length, 1, stdout);
    assert.match(stdout, /Fault 1: disk-full of worker 0/);
    const out = join(cwd, "runs/tiny");
    const path = join(out, "chaos.jsonl");
    const done = faultsIn(readFileSync(path, "utf8"), path).map(({ kind }) => kind);
    assert.deepEqual(done, ["disk-full", "slow-disk"]);
    const { weightsSha256, history } = reportOf(out);
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.deepEqual([history.workersLost, history.samplesRepeated], [0, 0]);
  }));
