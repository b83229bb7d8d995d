/**
 * Workers are killed and stopped while a checkpoint is written: the run goes on, each checkpoint
 * that is there is whole, and the weights are those of one worker.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";

const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: "300",
  checkpointEvery: "50",
  keepLast: "10",
});
/** A slow disk holds the next shard of a worker up for 3 s, and then it has a fault. */
const FAULTS = [
  { step: 20, worker: 1, kind: "slow-disk" },
  { step: 51, worker: 1, kind: "kill" },
  { step: 70, worker: 2, kind: "slow-disk" },
  { step: 101, worker: 2, kind: "stop" },
  { step: 120, worker: 0, kind: "slow-disk" },
  { step: 151, worker: 0, kind: "kill" },
];
const lines = FAULTS.map((one) => `${JSON.stringify({ ...one, seconds: 0 })}\n`);

test("workers are lost while they write a checkpoint: it is dropped, and no bit differs", () =>
  withFolder({ ...run, "faults.jsonl": lines.join("") }, async (cwd) => {
    const words = ["run.ts", "--threads", "1"];
    const one = await lockstep(["train", ...words, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const chaos = ["chaos", ...words, "--workers", "3", "--replay", "faults.jsonl"];
    const { status, stdout, stderr } = await lockstep(chaos, { cwd });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const out = join(cwd, "runs/tiny");
    const { weightsSha256, history } = reportOf(out);
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.deepEqual([history.workersLost, history.samplesRepeated], [3, 0]);
    for (const step of [50, 100]) {
      assert.match(
        stdout,
        new RegExp(`step ${step}: no checkpoint was written, and those before are kept`),
      );
    }
    const checked = await lockstep(["checkpoints", "runs/tiny", "--verify"], { cwd });
    assert.equal(checked.status, 0, `${checked.stdout}\n${checked.stderr}`);
    const kept = checked.stdout.match(/^step \d+ .* whole$/gm)?.map((line) => line.split(" ")[1]);
    assert.deepEqual(kept, ["200", "250", "300"], "those of 50, 100 and 150 were being written");
  }));
