/** Worker processes that divide the model along an axis, through the command. */
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { metricsOf, reportOf } from "../support/runs.ts";
import { childrenOf, lockstep, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

const STEPS = 40;
const BATCH = 8;
const files = runFiles({
  model: "gpt({ layers: 2, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: String(BATCH),
  microBatches: "8",
  steps: String(STEPS),
  evaluate: "{ every: 5 }",
  checkpointEvery: "5",
});
const WORDS = ["run.ts", "--threads", "1"];

interface Way {
  readonly axes: string;
  readonly workers: number;
  readonly more?: readonly string[];
  /** Whether the result is that of one process to the bit, or up to rounding. */
  readonly hasBits: boolean;
  /** Whether the others have all of the state when a worker is lost. */
  readonly isKept: boolean;
}

const WAYS: readonly Way[] = [
  { axes: "tensor=2", workers: 2, hasBits: false, isKept: false },
  { axes: "context=2", workers: 2, hasBits: false, isKept: true },
  { axes: "pipeline=2", workers: 2, hasBits: true, isKept: false },
  {
    axes: "data=2,pipeline=2",
    workers: 4,
    more: ["--timetable", "interleaved"],
    hasBits: true,
    isKept: true,
  },
];

/** By step: the loss with which it was committed at last. */
function lossesOf(out: string): ReadonlyMap<number, number> {
  const steps = metricsOf(out).filter(({ type }) => type === "step");
  return new Map(steps.map(({ step, loss }) => [step as number, loss as number]));
}

function checkResult(cwd: string, out: string, { hasBits, axes }: Pick<Way, "hasBits" | "axes">) {
  const [one, found] = [reportOf(join(cwd, "one")), reportOf(join(cwd, out))];
  const [wanted, losses] = [lossesOf(join(cwd, "one")), lossesOf(join(cwd, out))];
  assert.equal(losses.size, STEPS, axes);
  if (hasBits) {
    assert.equal(found.weightsSha256, one.weightsSha256, axes);
    assert.deepEqual(losses, wanted, axes);
  }
  for (const [step, loss] of wanted) {
    const other = losses.get(step) as number;
    assert.ok(Math.abs(other - loss) < 1e-4 * loss, `${axes}, step ${step}: ${other}, ${loss}`);
  }
  const [validated, alone] = [found.validationLoss as number, one.validationLoss as number];
  assert.ok(Math.abs(validated - alone) <= (hasBits ? 0 : 1e-4 * alone), axes);
  assert.ok(existsSync(join(cwd, out, "model.onnx")));
}

test(
  "workers that divide a model follow one process, lose one of them, are stopped, and others go on with other axes",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      for (const [index, way] of WAYS.entries()) {
        const out = `way${index}`;
        const { axes, workers, more = [], isKept } = way;
        const divided = ["--workers", String(workers), "--parallel", axes, ...more];
        let [hasKilled, isAsked] = [false, false];
        const stopped = await lockstep(["train", ...WORDS, ...divided, "--out", out], {
          cwd,
          onOutput: (stdout, { pid = 0 }) => {
            if (!hasKilled && stdout.includes("step 10: validation")) {
              hasKilled = true;
              process.kill(childrenOf(pid)[1] as number, "SIGKILL");
            } else if (!isAsked && stdout.includes("step 15: validation")) {
              isAsked = true;
              process.kill(pid, "SIGINT");
            }
          },
        });
        assert.equal(stopped.status, 130, `${axes}: ${stopped.stdout}\n${stopped.stderr}`);
        assert.match(stopped.stdout, /each by 2 workers together/);
        assert.match(stopped.stdout, /^Worker \d .* was lost/m, axes);
        const others = ["--workers", "2", "--parallel", "data=2"];
        const resume = ["train", ...WORDS, ...others, "--resume", "--out", out];
        const resumed = await lockstep(resume, { cwd });
        assert.equal(resumed.status, 0, `${axes}: ${resumed.stderr}`);
        const { history } = reportOf(join(cwd, out));
        assert.equal(history.samplesCommitted, BATCH * STEPS, axes);
        if (isKept) assert.equal(history.samplesRepeated, 0, axes);
        checkResult(cwd, out, way);
      }

      const staged = ["--workers", "2", "--parallel", "pipeline=2", "--timetable"];
      const { stdout } = await lockstep(["plan", "run.ts", ...staged, "zb-v"], { cwd });
      const lines = stdout.split("\n").filter((line) => /^\d: /.test(line));
      assert.equal(lines.length, 2, stdout);
      assert.match(stdout, /^0 {2}F+.*f+b+/m, "rank 0 has two stages");
      writeFileSync(join(cwd, "table.txt"), lines.join("\n"));
      const edited = ["train", ...WORDS, ...staged, "table.txt", "--out", "edited"];
      const { status, stderr } = await lockstep(edited, { cwd });
      assert.equal(status, 0, stderr);
      checkResult(cwd, "edited", { axes: "a timetable from a file", hasBits: true });
    }),
);

test("what does not go together is refused before anything starts", () =>
  withFolder(files, async (cwd) => {
    const refused = async (words: readonly string[], why: RegExp) => {
      const { status, stderr } = await lockstep(["train", ...WORDS, ...words], { cwd });
      assert.equal(status, 1, words.join(" "));
      assert.match(stderr, why);
    };
    await refused(["--parallel", "tensor=2"], /need 2 workers, but the run has 1/);
    const both = ["--workers", "2", "--parallel", "data=2,tensor=2"];
    await refused(both, /need 4 workers, but the run has 2/);
    const three = ["--workers", "3", "--parallel", "context=3"];
    await refused(three, /cannot cut sequences of 16 tokens evenly/);
    await refused(
      ["--workers", "2", "--attention", "ring"],
      /is for workers that divide sequences/,
    );
    const staged = ["--workers", "2", "--parallel", "pipeline=2"];
    await refused([...staged, "--recompute", "1MB"], /go together with a limit for recompute/);
    await refused(
      [...staged, "--timetable", "2f2b"],
      /one of 1f1b, gpipe, zb-h1, interleaved, zb-v .*, or a file/,
    );
  }));

test("a plan shows what is exchanged, and what a worker's memory takes", () =>
  withFolder(files, async (cwd) => {
    const divided = ["--workers", "2", "--parallel", "context=2"];
    const { status, stdout } = await lockstep(["plan", "run.ts", ...divided], { cwd });
    assert.equal(status, 0);
    assert.match(stdout, /mesh context=2; strategies: sequences divided over "context"/);
    assert.match(stdout, /sum over micro-batch and context/);
    assert.match(stdout, /activations of a micro-batch: .* in one piece\n {2}in \d+ pieces/);
    assert.match(stdout, /over context +barrier/);
  }));
