/**
 * `kill -9` of a run's processes, all at once or only the first: nothing is left behind, and
 * `--resume` continues.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, watch } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { metricsOf, reportOf } from "../support/runs.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

const SHARED = "/dev/shm";
const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc and /dev/shm" };

const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "6",
  microBatches: "6",
  steps: "24",
  evaluate: "{ every: 6 }",
  checkpointEvery: "4",
});

const train = (cwd: string, ...words: readonly string[]): Promise<Ended> =>
  lockstep(["train", "run.ts", "--threads", "1", ...words], { cwd });

/** Returns a process and all its descendants. */
function family(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  const words = existsSync(path) ? readFileSync(path, "utf8").trim().split(" ") : [];
  return [pid, ...words.filter((word) => word !== "").flatMap((child) => family(Number(child)))];
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/**
 * Returns the processes that are still there after a while, because a process closes its files
 * before it ends.
 */
async function left(pids: readonly number[]): Promise<number[]> {
  const deadlineAt = performance.now() + 5000;
  while (pids.some(isAlive) && performance.now() < deadlineAt) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  return pids.filter(isAlive);
}

/** Returns the shared memory whose name ends with one of these processes. */
function memoryOf(pids: readonly number[]): string[] {
  const owners = new Set(pids);
  return readdirSync(SHARED).filter(
    (file) => file.startsWith("lockstep-") && owners.has(Number(file.split(".").at(-1))),
  );
}

/** The last step that the metrics of a run tell of, which may end in the middle of a line. */
function lastStepIn(out: string): number {
  const text = readFileSync(join(out, "metrics.jsonl"), "utf8");
  const steps = [...text.matchAll(/"type":"step","step":(\d+).*\n/g)];
  return Number(steps.at(-1)?.[1]);
}

interface Killed extends Ended {
  readonly pids: readonly number[];
}

/** Runs workers until `when`, then kills. Resolves when all of them are gone. */
async function killed(
  cwd: string,
  workers: number,
  whom: "all" | "launcher",
  when: (stdout: string) => boolean,
): Promise<Killed> {
  let pids: readonly number[] = [];
  const onOutput = (stdout: string, child: ChildProcess) => {
    if (pids.length > 0 || child.pid === undefined || !when(stdout)) return;
    pids = family(child.pid);
    process.kill(whom === "all" ? -child.pid : child.pid, "SIGKILL");
  };
  const words = ["train", "run.ts", "--threads", "1", "--workers", String(workers)];
  // The output pipe closes when the last process that holds it has ended.
  const ended = await lockstep(words, { cwd, leads: true, onOutput });
  return { ...ended, pids };
}

/** The weights of a run that nobody disturbs. */
let undisturbed = "";
before(() =>
  withFolder(run, async (cwd) => {
    const ended = await train(cwd, "--workers", "1");
    assert.equal(ended.status, 0, ended.stderr);
    undisturbed = reportOf(join(cwd, "runs/tiny")).weightsSha256;
  }),
);

for (const [workers, whom] of [
  [3, "all"],
  [2, "all"],
  [2, "launcher"],
] as const) {
  test(
    `${whom === "all" ? `all processes of ${workers} workers` : "the launcher alone"} killed in the middle: nothing is left, and the resumed run gives the same weights`,
    onLinux,
    () =>
      withFolder(run, async (cwd) => {
        const { signal, stderr, pids } = await killed(cwd, workers, whom, (stdout) =>
          stdout.includes("step 12: "),
        );
        assert.equal(signal, "SIGKILL", stderr);
        assert.equal(pids.length, 1 + workers);
        assert.deepEqual(await left(pids), [], "processes");

        const told = lastStepIn(join(cwd, "runs/tiny"));
        const resumed = await train(cwd, "--resume", "--workers", String(workers));
        // Names exist only while workers meet or change shares. If the kill left one, this start
        // has removed it.
        assert.deepEqual(memoryOf(pids), [], "shared memory");
        assert.equal(resumed.status, 0, resumed.stderr);
        const from = Number(/continuing after step (\d+)/.exec(resumed.stdout)?.[1]);
        // The checkpoint of step 8 was begun, and may not have been complete; that of step 4 was.
        assert.ok(from >= 4 && from <= 24, resumed.stdout);
        const out = join(cwd, "runs/tiny");
        const { samplesCommitted, samplesRepeated } = reportOf(out).history;
        // The steps after the checkpoint were told, and are made again.
        assert.deepEqual([samplesCommitted, samplesRepeated], [24 * 6, (told - from) * 6]);
        assert.ok(told >= 12 && told > from);
        assert.equal(reportOf(out).weightsSha256, undisturbed);
        const steps = metricsOf(out).filter(({ type }) => type === "step");
        assert.deepEqual(
          steps.map(({ step }) => step),
          Array.from({ length: 24 }, (_, index) => index + 1),
        );
        assert.deepEqual(
          readdirSync(out).filter((name) => name.endsWith(".tmp")),
          [],
        );
      }),
  );
}

test(
  "shared memory of a run that was killed before all ranks had it is removed at the next start, also of one process",
  onLinux,
  () =>
    withFolder(run, async (cwd) => {
      let pids: readonly number[] = [];
      let kill: (() => void) | undefined;
      // The moment at which a name appears is the moment at which it can be left behind.
      const watcher = watch(SHARED, (_, file) => {
        if (file?.startsWith("lockstep-") === true) kill?.();
      });
      try {
        const words = ["train", "run.ts", "--threads", "1", "--workers", "3"];
        const through = ["sh", "-c", 'echo begins; exec "$@"', "sh"];
        const onOutput = (_: string, { pid }: ChildProcess) => {
          kill ??= () => {
            if (pid === undefined || pids.length > 0) return;
            const all = family(pid);
            if (memoryOf(all).length === 0) return;
            pids = all;
            process.kill(-pid, "SIGKILL");
          };
        };
        const { signal } = await lockstep(words, { cwd, through, leads: true, onOutput });
        assert.equal(signal, "SIGKILL");
      } finally {
        watcher.close();
      }
      assert.deepEqual(await left(pids), []);
      const next = await train(cwd, "--workers", "1", "--out", "next");
      assert.equal(next.status, 0, next.stderr);
      assert.deepEqual(memoryOf(pids), []);
    }),
);
