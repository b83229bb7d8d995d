/** A model that worker processes divide, through the command. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { assertLossesNear, childrenOf, lockstep, lossesOf, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

const STEPS = 30;
const files = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "4",
  microBatches: "4",
  steps: String(STEPS),
  evaluate: "{ every: 10 }",
  checkpointEvery: "5",
});
const WORDS = ["run.ts", "--threads", "1"];

test(
  "two workers that divide a model follow one process; a stopped run goes on with other axes; a lost worker is replaced from the checkpoint",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      const wanted = lossesOf(join(cwd, "one"));

      const divided = ["--workers", "2", "--parallel", "tensor=2"];
      const two = await lockstep(["train", ...WORDS, ...divided, "--out", "two"], { cwd });
      assert.equal(two.status, 0, two.stderr);
      assert.match(two.stdout, /micro-batches 4 of 4, each by 2 workers together/);
      assertLossesNear(lossesOf(join(cwd, "two")), wanted, "divided");
      const [alone, together] = ["one", "two"].map((out) => reportOf(join(cwd, out)));
      const validated = together?.validationLoss as number;
      assert.ok(Math.abs(validated - (alone?.validationLoss as number)) < 1e-4 * validated);
      assert.ok(existsSync(join(cwd, "two", "model.onnx")));

      let isAsked = false;
      const stopped = await lockstep(["train", ...WORDS, ...divided, "--out", "three"], {
        cwd,
        onOutput: (stdout, { pid = 0 }) => {
          if (isAsked || !stdout.includes("step 1/")) return;
          isAsked = true;
          process.kill(pid, "SIGINT");
        },
      });
      assert.equal(stopped.status, 130, stopped.stderr);
      const resume = ["train", ...WORDS, "--workers", "2", "--parallel", "data=2", "--resume"];
      const resumed = await lockstep([...resume, "--out", "three"], { cwd });
      assert.equal(resumed.status, 0, resumed.stderr);
      assertLossesNear(lossesOf(join(cwd, "three")), wanted, "resumed with other axes");

      let hasKilled = false;
      const harmed = await lockstep(["train", ...WORDS, ...divided, "--out", "four"], {
        cwd,
        onOutput: (stdout, { pid }) => {
          if (hasKilled || !/step ([6-9]|1\d)\//.test(stdout)) return;
          hasKilled = true;
          process.kill(childrenOf(pid)[1] as number, "SIGKILL");
        },
      });
      assert.equal(harmed.status, 0, `${harmed.stdout}\n${harmed.stderr}`);
      const { history } = reportOf(join(cwd, "four"));
      assert.equal(history.samplesCommitted, 4 * STEPS);
      if (hasKilled) assert.ok(history.workersLost >= 1);
    }),
);

test("what does not go together with a divided model is refused before anything starts", () =>
  withFolder(files, async (cwd) => {
    const refused = async (words: readonly string[], why: RegExp) => {
      const { status, stderr } = await lockstep(["train", ...WORDS, ...words], { cwd });
      assert.equal(status, 1, words.join(" "));
      assert.match(stderr, why);
    };
    await refused(["--parallel", "tensor=2"], /need 2 workers, but the run has 1/);
    const both = ["--workers", "2", "--parallel", "data=2,tensor=2"];
    await refused(both, /need 4 workers, but the run has 2/);
  }));
