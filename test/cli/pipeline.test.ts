/** Workers that compute the stages of a model, through the command. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { childrenOf, lockstep, lossesOf, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

const STEPS = 20;
const files = runFiles({
  model: "gpt({ layers: 2, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: String(STEPS),
  evaluate: "{ every: 10 }",
  checkpointEvery: "5",
});
const WORDS = ["run.ts", "--threads", "1"];
const STAGED = ["--workers", "2", "--parallel", "pipeline=2"];

test(
  "a pipeline ends with the bits of one process, also when it is stopped and goes on with other axes, and when it loses a worker",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const trained = async (out: string, words: readonly string[]) => {
        const { status, stderr } = await lockstep(["train", ...WORDS, ...words, "--out", out], {
          cwd,
        });
        assert.equal(status, 0, stderr);
      };
      const killed = async (out: string, words: readonly string[]) => {
        let hasKilled = false;
        const { status, stdout, stderr } = await lockstep(
          ["train", ...WORDS, ...words, "--out", out],
          {
            cwd,
            onOutput: (text, { pid }) => {
              if (hasKilled || !/step ([6-9]|1\d)\//.test(text)) return;
              hasKilled = true;
              process.kill(childrenOf(pid)[1] as number, "SIGKILL");
            },
          },
        );
        assert.equal(status, 0, `${stdout}\n${stderr}`);
        const { history } = reportOf(join(cwd, out));
        if (hasKilled) assert.ok(history.workersLost >= 1);
      };
      await trained("one", []);
      const alone = reportOf(join(cwd, "one"));
      const losses = lossesOf(join(cwd, "one"));
      const hasBits = (out: string) => {
        const found = reportOf(join(cwd, out));
        assert.equal(found.weightsSha256, alone.weightsSha256, out);
        assert.equal(found.validationLoss, alone.validationLoss, out);
        assert.deepEqual(lossesOf(join(cwd, out)).slice(-10), losses.slice(-10), out);
        return found;
      };
      await trained("two", STAGED);
      hasBits("two");
      const four = ["--workers", "4", "--parallel", "data=2,pipeline=2"];
      await killed("four", [...four, "--timetable", "interleaved"]);
      assert.equal(hasBits("four").history.samplesRepeated, 0);

      const planned = ["plan", "run.ts", ...STAGED, "--timetable", "zb-v"];
      const { stdout } = await lockstep(planned, { cwd });
      const lines = stdout.split("\n").filter((line) => /^\d: /.test(line));
      assert.equal(lines.length, 2, stdout);
      assert.match(stdout, /^0 {2}F+.*f+b+/m, "rank 0 has two stages");
      writeFileSync(join(cwd, "table.txt"), lines.join("\n"));
      await trained("edited", [...STAGED, "--timetable", "table.txt"]);
      hasBits("edited");

      let isAsked = false;
      const stopped = await lockstep(["train", ...WORDS, ...STAGED, "--out", "three"], {
        cwd,
        onOutput: (text, { pid = 0 }) => {
          if (isAsked || !text.includes("step 1/")) return;
          isAsked = true;
          process.kill(pid, "SIGINT");
        },
      });
      assert.equal(stopped.status, 130, stopped.stderr);
      await trained("three", ["--workers", "2", "--parallel", "data=2", "--resume"]);
      hasBits("three");

      await killed("five", STAGED);
      assert.equal(hasBits("five").history.samplesCommitted, 8 * STEPS);
    }),
);

test("what does not go together with a pipeline is refused before anything starts", () =>
  withFolder(files, async (cwd) => {
    const refused = async (words: readonly string[], why: RegExp) => {
      const { status, stderr } = await lockstep(["train", ...WORDS, ...words], { cwd });
      assert.equal(status, 1, words.join(" "));
      assert.match(stderr, why);
    };
    await refused([...STAGED, "--zero", "3"], /does not go together with ZeRO/);
    await refused(
      [...STAGED, "--timetable", "2f2b"],
      /one of 1f1b, gpipe, zb-h1, interleaved, zb-v .*, or a file/,
    );
    await refused(["--parallel", "pipeline=2"], /need 2 workers, but the run has 1/);
  }));
