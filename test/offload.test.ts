/**
 * State that lies on disk: the same weights through checkpoints and resumption, by real processes,
 * and nothing left behind.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { type Ended, lockstep, runFiles } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import { agentProcess, token, withProcesses } from "./support/hosts.ts";
import { checkpointsOf } from "./support/runs.ts";

const skip = process.platform === "win32" ? { skip: "there are no such files" } : {};
const files = runFiles({ microBatches: "4", checkpointEvery: "2" });

async function ok(words: readonly string[], cwd: string): Promise<Ended> {
  const ended = await lockstep(words, { cwd, env: { LOCKSTEP_TOKEN: token } });
  assert.equal(ended.status, 0, ended.stderr + ended.stdout);
  return ended;
}

function reportIn(cwd: string): { readonly weightsSha256: string; readonly notes: string[] } {
  return JSON.parse(readFileSync(join(cwd, "out", "report.json"), "utf8"));
}

/** Files of memory that have a name. */
function named(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.startsWith("lockstep-"));
}

describe("what a run keeps on disk", { concurrency: 2, ...skip }, () => {
  test("1 to 4 workers end with the bits of a run in memory, and say what lies where", () =>
    withFolder(files, async (cwd) => {
      const train = ["train", "run.ts", "--threads", "1", "--out", "out", "--anew"];
      await ok(train, cwd);
      const expected = reportIn(cwd);
      assert.ok(!expected.notes.some((note) => /on the disk/.test(note)));
      for (const words of [
        ["--workers", "1"],
        ["--workers", "2"],
        ["--workers", "2", "--zero", "1"],
        ["--workers", "3", "--parallel", "shard=3"],
        ["--workers", "4", "--zero", "3"],
      ]) {
        const { stdout } = await ok([...train, ...words, "--offload", "disk"], cwd);
        const isSharded = /zero 3|shard=3/.test(words.join(" "));
        assert.match(stdout, /Offload: .*optimizer slots [\d.]+ kB.* lie on the disk of "out"/);
        assert.equal(/Offload: parameters [\d.]+ kB and/.test(stdout), isSharded, stdout);
        assert.equal(reportIn(cwd).weightsSha256, expected.weightsSha256, words.join(" "));
        assert.deepEqual(named(join(cwd, "out")), []);
      }
    }));

  test("a run goes on from a checkpoint with its state on disk, off it, and on it again", () =>
    withFolder(files, async (cwd) => {
      const train = ["train", "run.ts", "--threads", "1", "--out", "out"];
      await ok([...train, "--steps", "6"], cwd);
      const expected = reportIn(cwd).weightsSha256;
      const disk = ["--offload", "disk"];
      const two = ["--workers", "2", "--zero", "3"];
      const change = ["--resume", "--change", "steps"];
      await ok([...train, "--anew", "--steps", "2", ...two, ...disk], cwd);
      await ok([...train, ...change, "--steps", "4"], cwd);
      await ok([...train, ...change, "--steps", "6", ...two, ...disk], cwd);
      assert.equal(reportIn(cwd).weightsSha256, expected);
    }));

  test("workers that are killed leave no file, and their run goes on", () =>
    withFolder(
      runFiles({ microBatches: "4", checkpointEvery: "10", steps: "300" }),
      async (cwd) => {
        const train = ["train", "run.ts", "--threads", "1", "--out", "out"];
        await ok(train, cwd);
        const expected = reportIn(cwd).weightsSha256;
        const disk = ["--workers", "2", "--zero", "3", "--offload", "disk"];
        const out = join(cwd, "out");
        let watch: NodeJS.Timeout | undefined;
        const killed = await lockstep([...train, "--anew", ...disk], {
          cwd,
          leads: true,
          onOutput: (stdout, child) => {
            if (watch !== undefined || !stdout.includes("step 1/")) return;
            watch = setInterval(() => {
              if (checkpointsOf(out).length === 0) return;
              clearInterval(watch);
              process.kill(-(child.pid as number), "SIGKILL");
            }, 10);
          },
        });
        clearInterval(watch);
        assert.equal(killed.signal, "SIGKILL", killed.stdout);
        assert.deepEqual(named(join(cwd, "out")), []);
        await ok([...train, "--resume", ...disk], cwd);
        assert.equal(reportIn(cwd).weightsSha256, expected);
      },
    ));

  test("a job and its plan say it, as the command line does", () =>
    withFolder(files, async (cwd) => {
      await ok(["job", "run.ts", "--out", "job"], cwd);
      const train = ["train", "job", "--threads", "1", "--out", "out", "--anew"];
      await ok(train, cwd);
      const expected = reportIn(cwd).weightsSha256;
      await ok([...train, "--workers", "2", "--offload", "disk"], cwd);
      assert.equal(reportIn(cwd).weightsSha256, expected);
      await withProcesses([agentProcess(cwd)], async (hosts) => {
        const over = ["--hosts", hosts.join(","), "--workers", "2", "--zero", "3"];
        const { stdout } = await ok(
          ["train", "job", "--out", "out", "--anew", ...over, "--offload", "disk"],
          cwd,
        );
        assert.match(stdout, /Offload: parameters [\d.]+ kB and optimizer slots/);
        assert.equal(reportIn(cwd).weightsSha256, expected);
      });
      const sharing = ["--workers", "2", "--zero", "3", "--offload", "disk"];
      const { stdout } = await ok(["plan", "job", ...sharing], cwd);
      assert.match(stdout, /strategies: .*, offload to disk/);
      assert.match(stdout, /slot\.0\.exp_avg +\S+ kB +on disk, shared/);
      const [memory = "", disk = ""] = stdout.split("on the disk of this rank");
      assert.doesNotMatch(memory.split("memory of this rank")[1] ?? "", /slots|parameters/);
      assert.match(disk, /^\n +parameters +\S+ kB\n +optimizer slots +\S+ kB\n/);
      const json = await ok(["plan", "job", ...sharing, "--json"], cwd);
      const { step, program } = JSON.parse(json.stdout);
      assert.equal(program.buffers.parameters.space, "disk");
      assert.ok(Object.values(step.values).some((value) => (value as Plain)["space"] === "disk"));
    }));

  test("other words are refused with the nearest, and so is a folder in memory", () =>
    withFolder(runFiles({ offload: '"dsk"' }), async (cwd) => {
      const run = await lockstep(["train", "run.ts"], { cwd });
      assert.match(run.stderr, /offload: must be "disk", and is "dsk" \(did you mean "disk"\?\)/);
      const words = await lockstep(["train", "run.ts", "--offload", "dsik"], { cwd });
      assert.match(words.stderr, /It must be "disk", and is "dsik" \(did you mean "disk"\?\)/);
      const job = await lockstep(["plan", "run.ts", "--workers", "1", "--offload", "gpu"], { cwd });
      assert.match(job.stderr, /It must be "disk", and is "gpu"\.[^]*\[INVALID_OPTION\]/);
    }));

  const shm = "/dev/shm";
  const isInMemory = process.platform === "linux" && statfsSync(shm).type === 0x01021994;
  test("a folder in memory is refused", { skip: !isInMemory && "needs a tmpfs" }, () =>
    withFolder(files, async (cwd) => {
      const out = join(shm, `lockstep-test-${process.pid}`);
      const words = ["train", "run.ts", "--offload", "disk", "--out", out];
      const { status, stderr } = await lockstep(words, { cwd });
      assert.equal(status, 1, stderr);
      assert.match(stderr, /lies in memory \(tmpfs\), so nothing would be saved.*\n.*--out/);
    }),
  );
});

type Plain = Readonly<Record<string, unknown>>;
