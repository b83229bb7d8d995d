/** Faults done at random to the processes of a run: it ends with the weights of one worker. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { faultsIn } from "../../src/chaos/index.ts";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { metricsOf, reportOf } from "../support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc and /dev/shm" };

const STEPS = 160;
const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: String(STEPS),
  evaluate: "{ every: 40 }",
  checkpointEvery: "20",
});

/** Faults tied to steps, so that the test takes as long on a slow machine: 8 of three kinds. */
const FAULTS = [
  [5, 1, "kill"],
  [20, 0, "segfault"],
  [35, 2, "stop"],
  [60, 3, "kill"],
  [61, 4, "segfault"],
  [80, 5, "kill"],
  [110, 6, "segfault"],
  [130, 7, "kill"],
]
  .map(([step, worker, kind]) => `${JSON.stringify({ step, worker, kind, seconds: 0 })}\n`)
  .join("");

/** Bits that flip in the weights of each of three workers. */
const FLIPS = [
  [3, 1],
  [7, 0],
  [12, 2],
  [13, 1],
]
  .map(([step, worker]) => `${JSON.stringify({ step, worker, kind: "bit-flip", seconds: 0 })}\n`)
  .join("");

/** The processes of the machine that have this process among their parents. */
function children(): number[] {
  const path = `/proc/self/task/${process.pid}/children`;
  return readFileSync(path, "utf8").trim().split(" ").filter(Boolean).map(Number);
}

/** The fields of a shorter run, in which each step is checked. */
const FLIPPED = {
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "6",
  microBatches: "6",
  steps: "24",
  checkReplicas: "1",
};

/** The weights of one worker that trains undisturbed. */
function weightsOfOne(files: Readonly<Record<string, string>>): Promise<string> {
  return withFolder(files, async (cwd) => {
    const one = await lockstep(["train", "run.ts", "--threads", "1"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    return reportOf(join(cwd, "runs/tiny")).weightsSha256;
  });
}

let [expected, expectedOfFlipped] = ["", ""];
before(async () => {
  expected = await weightsOfOne(run);
  expectedOfFlipped = await weightsOfOne(runFiles(FLIPPED));
});

for (const zero of [1, 3]) {
  test(`4 workers, zero ${zero}, and 8 faults: the weights of one worker`, onLinux, () =>
    withFolder({ ...run, "faults.jsonl": FAULTS }, async (cwd) => {
      const words = ["run.ts", "--threads", "1"];
      const others = new Set(readdirSync("/dev/shm"));
      const chaos = ["--workers", "4", "--zero", String(zero), "--replay", "faults.jsonl"];
      const { status, stdout, stderr } = await lockstep(["chaos", ...words, ...chaos], { cwd });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      const out = join(cwd, "runs/tiny");
      assert.equal(reportOf(out).weightsSha256, expected);
      const { samplesCommitted, samplesRepeated } = reportOf(out).history;
      assert.equal(samplesCommitted, 8 * STEPS);
      // 0, unless all workers were lost at once.
      assert.equal(samplesRepeated > 0, /no worker that lives holds the state/.test(stdout));
      assert.match(stdout, new RegExp(`8 faults.*: \\d+ workers lost.*${expected}`));
      const path = join(out, "chaos.jsonl");
      const done = faultsIn(readFileSync(path, "utf8"), path);
      assert.equal(done.length, 8);
      const steps = metricsOf(out).filter(({ type }) => type === "step");
      assert.deepEqual(
        steps.map(({ step }) => step),
        Array.from({ length: STEPS }, (_, index) => index + 1),
        "metrics have every step once",
      );
      const left = readdirSync("/dev/shm").filter(
        (name) => !others.has(name) && name.startsWith("lockstep-lockstep-"),
      );
      assert.deepEqual(left, []);
      assert.deepEqual(children(), []);
    }),
  );
}

test(
  "bits flip in the weights of 3 workers: each is healed, and the weights are those of one",
  onLinux,
  () => {
    const files = runFiles(FLIPPED);
    return withFolder({ ...files, "faults.jsonl": FLIPS }, async (cwd) => {
      const words = ["run.ts", "--threads", "1"];
      const chaos = ["--workers", "3", "--parallel", "data=3", "--replay", "faults.jsonl"];
      const { status, stdout, stderr } = await lockstep(["chaos", ...words, ...chaos], { cwd });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      const out = join(cwd, "runs/tiny");
      const healed = metricsOf(out).filter(({ type }) => type === "healed");
      // A bit that flips while its weight is being replaced by the next one leaves no trace.
      assert.ok(healed.length >= 3 && healed.length <= 4, `${healed.length} of 4`);
      assert.match(stdout, /weights of worker \d were not what they should be/);
      assert.doesNotMatch(stdout, /may have been computed with them/);
      const { weightsSha256, history } = reportOf(out);
      assert.equal(weightsSha256, expectedOfFlipped);
      assert.deepEqual(
        [history.workersLost, history.samplesCommitted, history.samplesRepeated],
        [0, 24 * 6, 0],
      );
    });
  },
);

test(
  "a bit flips in weights that one worker alone has: the run falls back by itself",
  onLinux,
  () => {
    const files = runFiles({
      ...FLIPPED,
      // The bit flips between a commit and the validation that follows.
      evaluate: "{ every: 1, samples: 1024 }",
      checkpointEvery: "4",
    });
    // The leader tells the step once it has summed its own state; another worker may be about to.
    const flip = { step: 10, worker: 0, kind: "bit-flip", seconds: 0 };
    return withFolder({ ...files, "faults.jsonl": `${JSON.stringify(flip)}\n` }, async (cwd) => {
      const words = ["run.ts", "--threads", "1"];
      const chaos = ["--workers", "2", "--zero", "3", "--replay", "faults.jsonl"];
      const { status, stdout, stderr } = await lockstep(["chaos", ...words, ...chaos], { cwd });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      assert.match(stdout, /Bytes of the state of worker \d have changed by themselves after step/);
      const from = Number(
        /no worker that lives holds .* checkpoint of step (\d+)/.exec(stdout)?.[1],
      );
      const { weightsSha256, history } = reportOf(join(cwd, "runs/tiny"));
      assert.equal(weightsSha256, expectedOfFlipped);
      assert.equal(history.samplesCommitted, 24 * 6);
      assert.ok(from >= 4 && history.samplesRepeated >= (10 - from) * 6, `${from}: ${stdout}`);
    });
  },
);
