/**
 * Workers that are lost where memory is in the way: those left have no room for the state, or the
 * system does not let them map memory of each other again.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

/** 2.4 million parameters, 16 bytes each with gradient and slots: 38 MB, or 19 for each of two. */
const files = runFiles({
  model: "gpt({ layers: 3, width: 256, heads: 2, context: 16 })",
  batch: "4",
  microBatches: "4",
  steps: "40",
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

/** The system refuses the descriptors of other processes, as it does with `hidepid`. */
const hidden = `--import=data:text/javascript,${encodeURIComponent(`
  import fs from "node:fs";
  import { syncBuiltinESMExports } from "node:module";
  const { openSync } = fs;
  fs.openSync = (path, ...rest) => {
    const isOther = /^\\/proc\\/\\d+\\/fd\\//.test(path);
    if (isOther) throw Object.assign(new Error("EACCES: " + path), { code: "EACCES" });
    return openSync(path, ...rest);
  };
  syncBuiltinESMExports();`)}`;

function workersOf(launcher: number): number[] {
  const path = `/proc/${launcher}/task/${launcher}/children`;
  return readFileSync(path, "utf8").trim().split(" ").map(Number);
}

/** Trains on two workers, of which the second is killed after the first step. */
function trainTwo(cwd: string, words: readonly string[], preload: string) {
  let hasKilled = false;
  return lockstep(["train", ...WORDS, "--workers", "2", "--out", "two", ...words], {
    cwd,
    env: { NODE_OPTIONS: preload },
    onOutput: (stdout, { pid = 0 }) => {
      if (hasKilled || !stdout.includes("step 1/")) return;
      hasKilled = true;
      process.kill(workersOf(pid)[1] as number, "SIGKILL");
    },
  });
}

test(
  "a worker that is left and has no room for the whole state keeps its part and waits for another, and memory that may not be mapped again is copied",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      const { weightsSha256 } = reportOf(join(cwd, "one"));
      const check = ({ status, stdout, stderr }: Ended) => {
        assert.equal(status, 0, `${stdout}\n${stderr}`);
        const report = reportOf(join(cwd, "two"));
        assert.equal(report.weightsSha256, weightsSha256);
        assert.deepEqual([report.history.workersLost, report.history.samplesRepeated], [1, 0]);
        return stdout;
      };
      const short = check(await trainTwo(cwd, ["--zero", "3"], limited));
      assert.match(
        short,
        /The run waits after step \d+: 1 worker is ready, and it needs 2; .*\. One process alone would need at least \d+ MB of memory .*may use only 30 MB/,
      );
      assert.match(short, /Generation 3 begins after step \d+ with workers 0 and 2/);

      const copied = check(await trainTwo(cwd, ["--min-workers", "2"], hidden));
      assert.equal(copied.split("does not let workers map memory of each other again").length, 2);
    }),
);
