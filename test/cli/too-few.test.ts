/** A run whose workers hold the state together, and lose so many that the rest has no room for it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { lockstep, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

/** 2.4 million parameters, 16 bytes each with gradient and slots: 38 MB, or 19 for each of two. */
const files = runFiles({
  model: "gpt({ layers: 3, width: 256, heads: 2, context: 16 })",
  batch: "4",
  microBatches: "4",
  steps: "12",
  checkpointEvery: "4",
});
const WORDS = ["run.ts", "--threads", "1"];
const LIMIT = 30e6;

/** Each worker believes that it has a container of its own with so much memory. */
const limited = `--import=data:text/javascript,${encodeURIComponent(`
  import fs from "node:fs";
  import { syncBuiltinESMExports } from "node:module";
  if (process.send !== undefined) {
    process.constrainedMemory = () => ${LIMIT};
    const { existsSync, readFileSync } = fs;
    const isOwn = (path) => path === "/proc/self/cgroup";
    fs.existsSync = (path) => isOwn(path) || existsSync(path);
    fs.readFileSync = (path, ...rest) => isOwn(path) ? Buffer.from(String(process.pid)) : readFileSync(path, ...rest);
    syncBuiltinESMExports();
  }`)}`;

function workersOf(launcher: number): number[] {
  const path = `/proc/${launcher}/task/${launcher}/children`;
  return readFileSync(path, "utf8").trim().split(" ").map(Number);
}

test(
  "a worker that is left and has no room for the whole state keeps its part and waits for another",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      let hasKilled = false;
      const words = ["train", ...WORDS, "--workers", "2", "--zero", "3", "--out", "two"];
      const two = await lockstep(words, {
        cwd,
        env: { NODE_OPTIONS: limited },
        onOutput: (stdout, { pid = 0 }) => {
          if (hasKilled || !stdout.includes("step 1/")) return;
          hasKilled = true;
          process.kill(workersOf(pid)[1] as number, "SIGKILL");
        },
      });
      assert.equal(two.status, 0, `${two.stdout}\n${two.stderr}`);
      assert.match(
        two.stdout,
        /The run waits after step \d+: 1 worker is ready, and it needs 2; .*\. One process alone would need at least \d+ MB of memory .*may use only 30 MB/,
      );
      assert.match(two.stdout, /Generation 3 begins after step \d+ with workers 0 and 2/);
      const { history, weightsSha256 } = reportOf(join(cwd, "two"));
      assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
      assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);
    }),
);
