/**
 * What a run survives at its edges, through the command: workers that leave, all of them lost at
 * once, places that lose one after the other, too few workers, a clock that jumps, and a /dev/shm
 * that is too small.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { FaultKind } from "../../src/chaos/index.ts";
import { withFolder } from "../support/folder.ts";
import { checkpointsOf, metricsOf, reportOf } from "../support/runs.ts";
import { lockstep, runFiles } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };
const canUnshare =
  process.platform === "linux" && spawnSync("unshare", ["-m", "true"]).status === 0
    ? {}
    : { skip: "needs a mount namespace of its own" };

const STEPS = 60;
const files = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "4",
  microBatches: "4",
  steps: String(STEPS),
  evaluate: "{ every: 30 }",
  checkpointEvery: "5",
});
const WORDS = ["run.ts", "--threads", "1"];

/** Lets the wall clock of all processes of a run jump an hour ahead and back, again and again. */
const JUMPING = `--import=data:text/javascript,${encodeURIComponent(
  "const now = Date.now, at = performance.now();" +
    "Date.now = () => now() + 36e5 * (Math.floor((performance.now() - at) / 300) % 2);",
)}`;

function childrenOf(pid: number | undefined): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").map(Number) : [];
}

/** Each step has one line, whoever led and however often it was made. */
function assertEachStepOnce(out: string): void {
  const steps = metricsOf(out).filter(({ type }) => type === "step");
  assert.deepEqual(
    steps.map(({ step }) => step),
    Array.from({ length: STEPS }, (_, index) => index + 1),
  );
}

/** Faults as `--replay` reads them. */
function faults(
  ...lines: readonly (readonly [step: number, worker: number, kind: FaultKind])[]
): string {
  return lines
    .map(([step, worker, kind]) => `${JSON.stringify({ step, worker, kind, seconds: 0 })}\n`)
    .join("");
}

/**
 * A save waits for the one before, so after step 24 those of steps 10 and 15 are complete. The newest
 * checkpoint is damaged, all are lost at once, and then two at one place.
 */
const FAULTS = faults(
  [24, 0, "corrupt"],
  [24, 0, "kill"],
  [24, 1, "kill"],
  [24, 2, "kill"],
  [26, 4, "kill"],
  [26, 6, "kill"],
);

/** All workers are stopped at once. */
const STOPS = faults([24, 0, "stop"], [24, 1, "stop"], [24, 2, "stop"]);

test(
  "SIGTERM to a worker, while the wall clock jumps: it leaves after a step, and no bit changes; all lost at once, and one after the other at one place: the checkpoint goes on, and what is repeated is counted; all stopped at once: one is continued, and nothing is repeated",
  onLinux,
  () =>
    withFolder({ ...files, "faults.jsonl": FAULTS, "stopped.jsonl": STOPS }, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      const { weightsSha256 } = reportOf(join(cwd, "one"));

      let asked = false;
      const drained = await lockstep(["train", ...WORDS, "--workers", "3", "--out", "drained"], {
        cwd,
        env: { NODE_OPTIONS: JUMPING },
        onOutput: (stdout, { pid }) => {
          if (asked || !stdout.includes("step 1/")) return;
          asked = true;
          // The worker that leads, which has the lock of the folder.
          process.kill(childrenOf(pid)[0] as number, "SIGTERM");
        },
      });
      assert.equal(drained.status, 0, drained.stderr);
      assert.match(drained.stdout, /Worker 0 .*is asked to leave: it got SIGTERM/);
      assert.match(drained.stdout, /Generation 2 begins after step \d+ with workers 1 and 2/);
      const { history, weightsSha256: left } = reportOf(join(cwd, "drained"));
      assert.equal(left, weightsSha256);
      assert.deepEqual([history.workersLost, history.stepsRepeated], [0, 0]);

      const words = ["--workers", "3", "--replay", "faults.jsonl", "--out", "fallen"];
      const fallen = await lockstep(["chaos", ...WORDS, ...words], { cwd });
      assert.equal(fallen.status, 0, `${fallen.stdout}\n${fallen.stderr}`);
      assert.match(fallen.stdout, /goes on from its (beginning|checkpoint of step \d+)/);
      assert.match(fallen.stdout, /The run continues from the checkpoint of step \d+/);
      assert.match(fallen.stdout, /Place \S+ \(host \S+\) is set aside for .+ because 2 workers/);
      const report = reportOf(join(cwd, "fallen"));
      assert.equal(report.weightsSha256, weightsSha256);
      assert.equal(report.history.workersLost, 5);
      assert.ok(report.history.stepsRepeated >= 2, "the steps since the checkpoint");
      assertEachStepOnce(join(cwd, "fallen"));

      const still = ["--workers", "3", "--replay", "stopped.jsonl", "--out", "stopped"];
      const stopped = await lockstep(["chaos", ...WORDS, ...still], { cwd });
      assert.equal(stopped.status, 0, `${stopped.stdout}\n${stopped.stderr}`);
      assert.match(stopped.stdout, /is continued \(SIGCONT\), because no other worker that runs/);
      const { history: kept, weightsSha256: after } = reportOf(join(cwd, "stopped"));
      assert.equal(after, weightsSha256);
      assert.equal(kept.samplesRepeated, 0);
    }),
);

test(
  "with --min-workers the run waits and goes on by itself, and a stop ends the wait",
  onLinux,
  () =>
    withFolder(files, async (cwd) => {
      const words = ["train", ...WORDS, "--workers", "2", "--min-workers", "2"];
      const harmed = (out: string, waits: (launcher: number) => void) => {
        let [hasKilled, hasWaited] = [false, false];
        return lockstep([...words, "--out", out], {
          cwd,
          onOutput: (stdout, { pid = 0 }) => {
            if (!hasKilled && stdout.includes("step 1/")) {
              hasKilled = true;
              process.kill(childrenOf(pid)[1] as number, "SIGKILL");
            }
            if (hasWaited || !stdout.includes("The run waits after step")) return;
            hasWaited = true;
            waits(pid);
          },
        });
      };
      let hasWaited = false;
      const [waited, stopped] = await Promise.all([
        harmed("waited", () => {
          hasWaited = true;
        }),
        harmed("stopped", (launcher) => process.kill(launcher, "SIGTERM")),
      ]);
      assert.equal(waited.status, 0, waited.stderr);
      assert.ok(hasWaited, waited.stdout);
      assert.match(waited.stdout, /Generation 2 begins after step \d+ with workers 0 and 2/);
      assert.equal(stopped.status, 143, `${stopped.stdout}\n${stopped.stderr}`);
      assert.doesNotMatch(stopped.stdout, /set aside|Worker 2 .*was lost/);
      assert.ok(checkpointsOf(join(cwd, "stopped")).length > 0, "nothing was saved");
    }),
);

/** Puts a /dev/shm of this size in front of a command. */
const withShared = (megabytes: number) => [
  "unshare",
  "-m",
  "sh",
  "-c",
  `set -e; mount --make-rprivate /; mount -t tmpfs -o size=${megabytes}m tmpfs /dev/shm; exec "$@"`,
  "sh",
];

/** Its state is larger than what the transport itself takes. */
const large = {
  ...files,
  "run.ts": (files["run.ts"] ?? "").replace("width: 16", "width: 64"),
};

test("a /dev/shm that is too small is told with what is needed and what is free", canUnshare, () =>
  withFolder(large, async (cwd) => {
    const { status, stderr } = await lockstep(["train", ...WORDS, "--workers", "2"], {
      cwd,
      through: withShared(5),
    });
    assert.equal(status, 1, stderr);
    assert.match(
      stderr,
      /^lockstep: The 2 workers of a machine would share [\d.]+ MB of memory, but \/dev\/shm has [\d.]+ MB free\.\n {2}.*--shm-size.*--workers.*--zero.*\[OUT_OF_MEMORY\]/,
    );
  }),
);

test(
  "a /dev/shm without room for two generations: the run goes on with fewer workers, or from its checkpoint",
  canUnshare,
  () =>
    withFolder({ ...large, "faults.jsonl": faults([12, 1, "kill"]) }, async (cwd) => {
      const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
      assert.equal(one.status, 0, one.stderr);
      const words = [...WORDS, "--workers", "3", "--replay", "faults.jsonl", "--out", "out"];
      const through = withShared(16);
      const { status, stdout, stderr } = await lockstep(["chaos", ...words], { cwd, through });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      assert.match(stdout, /There is no room for a new generation beside the old one: /);
      const { weightsSha256 } = reportOf(join(cwd, "out"));
      assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
      assertEachStepOnce(join(cwd, "out"));
    }),
);
