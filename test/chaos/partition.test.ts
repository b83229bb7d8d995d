/**
 * A machine is cut off from the others and from the launcher: for less time than it takes to miss
 * it, then for so long that it is given up, and comes back. The weights are those of one worker.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { agentProcess, token, withProcesses } from "../support/hosts.ts";
import { reportOf } from "../support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "agents look at /proc" };
const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: "40",
});
const [SHORT_MS, LONG_MS] = [500, 6_000];
const FAULTS = [
  { step: 5, worker: 1, kind: "partition", seconds: 0, ms: SHORT_MS },
  { step: 15, worker: 1, kind: "partition", seconds: 0, ms: LONG_MS },
];
const files = { ...run, "faults.jsonl": FAULTS.map((one) => `${JSON.stringify(one)}\n`).join("") };

test("a machine is cut off for a moment, then until it is given up, and comes back", onLinux, () =>
  withFolder(files, async (cwd) => {
    const words = ["run.ts", "--threads", "1"];
    const one = await lockstep(["train", ...words, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const starts = ["a", "b"].map((name) => {
      mkdirSync(join(cwd, name));
      for (const [file, text] of Object.entries(run)) writeFileSync(join(cwd, name, file), text);
      return agentProcess(join(cwd, name));
    });
    await withProcesses(starts, async (hosts) => {
      const far = ["--hosts", hosts.join(","), "--token", token, "--workers", "1"];
      // So the run waits until the machine that was given up is back.
      const chaos = ["chaos", ...words, ...far, "--min-workers", "2", "--replay", "faults.jsonl"];
      const { status, stdout, stderr } = await lockstep(chaos, { cwd });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      const [, short = "", long = ""] = stdout.split(/Fault \d: partition of worker 1 for /);
      assert.match(short, /^0\.5 s/);
      assert.doesNotMatch(short, /lost|Generation/);
      assert.match(long, /^6\.0 s/);
      assert.match(long, /Worker 1 \(host .*\) was lost at step \d+, found in [\d.]+ s/);
      assert.match(long, new RegExp(`The agent on ${hosts[1]} is lost: .*It is dialed again`));
      assert.match(long, /The run waits after step/);
      assert.match(long, /Generation \d begins after step \d+ with workers 0 and \d/);
      const { weightsSha256, history } = reportOf(join(cwd, "a/runs/tiny"));
      assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
      assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);

      const alone = ["chaos", ...words, "--hosts", hosts[0] ?? "", "--token", token];
      const refused = await lockstep([...alone, "--kinds", "partition"], { cwd });
      assert.match(refused.stderr, /"partition" needs two --hosts or more/);
    });
  }),
);
