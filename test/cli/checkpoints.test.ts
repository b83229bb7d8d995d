/** The commands for the checkpoints of a run, and processes that end in the middle of a save. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { readSafetensors } from "../../src/safetensors/index.ts";
import { withFolder } from "../support/folder.ts";
import { checkpointsOf, reportOf, shardsOf, sourceIn } from "../support/runs.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

const MOUNTS = canMount();
const files = runFiles({ microBatches: "4", checkpointEvery: "2" });

/** A model whose checkpoint takes a while to write. */
const LARGER = {
  model: "gpt({ layers: 1, width: 128, heads: 2, context: 16 })",
  microBatches: "4",
  checkpointEvery: "1",
  evaluate: "{ every: 100 }",
};

async function ok(words: readonly string[], cwd: string): Promise<Ended> {
  const ended = await lockstep(words, { cwd });
  assert.equal(ended.status, 0, ended.stderr + ended.stdout);
  return ended;
}

/** Every checkpoint that has its name is whole. */
async function allAreWhole(out: string): Promise<void> {
  for (const step of checkpointsOf(out)) {
    const source = await sourceIn(out, step);
    for (const shard of source.files.keys()) {
      assert.equal(await source.check(shard), undefined, `step ${step}, shard ${shard}`);
    }
  }
}

function draftsIn(out: string): string[] {
  const folder = join(out, "checkpoints");
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith(".step-")) : [];
}

describe("checkpoints", { concurrency: 2 }, () => {
  test("resume continues the command that started a run, from any folder", () =>
    withFolder({}, async (root) => {
      const cwd = join(root, "project");
      await withFiles(cwd, async () => {
        const words = ["train", "run.ts", "--threads", "1", "--steps", "6", "--seed", "7"];
        await ok([...words, "--out", "whole"], cwd);
        let isAsked = false;
        const two = ["--workers", "2", "--min-workers", "2"];
        const stopped = await lockstep([...words, "--out", "out", ...two], {
          cwd,
          onOutput: (stdout, child) => {
            if (!isAsked && stdout.includes("step 1/")) isAsked = child.kill("SIGINT");
          },
        });
        assert.equal(stopped.status, 130, stopped.stderr + stopped.stdout);
        // The project may move as a whole.
        const moved = join(root, "moved");
        renameSync(cwd, moved);
        const { stdout } = await ok(["resume", join(moved, "out")], root);
        assert.match(stdout, /^run\.ts, continued in out\n/);
        assert.match(stdout, /continuing after step \d/);
        assert.equal(
          reportOf(join(moved, "out")).weightsSha256,
          reportOf(join(moved, "whole")).weightsSha256,
        );
        assert.equal(reportOf(join(moved, "out")).workers, 2);
        const longer = ["resume", "out", "--steps", "8", "--workers", "1", "--change", "steps"];
        await ok(longer, moved);
        assert.equal(reportOf(join(moved, "out")).workers, 1);
        assert.equal(reportOf(join(moved, "out")).steps, 8);
        const otherwise = ["--parallel", "shard=2", "--workers", "2"];
        const { stdout: sharded } = await ok(
          ["resume", "out", "--steps", "10", ...otherwise],
          moved,
        );
        assert.match(sharded, /shard 2, zero 3/);
        // Two axes state a number of workers, which another number replaces.
        await ok(["resume", "out", "--steps", "12", "--workers", "1"], moved);
        assert.equal(reportOf(join(moved, "out")).steps, 12);
      });
    }));

  test("a folder that records no command, or a changed one, is refused with what to do", () =>
    withFolder({ ...files, "out/run.json": '{"format":"lockstep-command-1"}' }, async (cwd) => {
      const none = await lockstep(["resume", "."], { cwd });
      assert.match(none.stderr, /does not record which command.*\n.*--resume.*\[CHECKPOINT\]/);
      for (const command of ["resume", "checkpoints"]) {
        const absent = await lockstep([command, "runs/none"], { cwd });
        assert.match(absent.stderr, /There is no folder "runs\/none".*\[FILE_NOT_FOUND\]/s);
      }
      const changed = await lockstep(["resume", "out"], { cwd });
      assert.match(changed.stderr, /run\.json" does not record a command.*\[CHECKPOINT\]/s);
    }));

  test("checkpoints are listed, checked and compared; damage is named and sets the status", () =>
    withFolder(files, async (cwd) => {
      const words = ["train", "run.ts", "--threads", "1", "--out", "out", "--steps", "6"];
      await ok([...words, "--workers", "2", "--keep-last", "3"], cwd);
      const out = join(cwd, "out");
      assert.deepEqual(checkpointsOf(out), [2, 4, 6]);
      const { stdout } = await ok(["checkpoints", "out", "--verify"], cwd);
      assert.match(
        stdout,
        /^step 2 +[\d.]+ kB +loss \d\.\d{4}, [\d.]+ s of training, 2 shards, whole\n/,
      );
      const { stdout: compared } = await ok(["checkpoints", "out", "--diff", "4", "6"], cwd);
      assert.match(compared, /the same model, data and options\n(\d+) of \1 tensors differ/);
      const { stdout: same } = await ok(["checkpoints", "out", "--diff", "6", "6"], cwd);
      assert.match(same, /\n0 of \d+ tensors differ/);
      const wrong = await lockstep(["checkpoints", "out", "--diff", "4", "5"], { cwd });
      assert.match(wrong.stderr, /no checkpoint of step 5.*\n.*2, 4, 6/);
      const word = await lockstep(["checkpoints", "out", "--diff", "4", "last"], { cwd });
      assert.match(word.stderr, /--diff takes two steps.*\[INVALID_OPTION\]/);
      const absent = ["export", "out", "--step", "5", "--to", "model.onnx"];
      const without = await lockstep(absent, { cwd });
      assert.match(without.stderr, /no checkpoint of step 5.*\n.*2, 4, 6/);

      const [first = ""] = shardsOf(out);
      const bytes = readFileSync(first);
      bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1;
      writeFileSync(first, bytes);
      const damaged = await lockstep(["checkpoints", "out", "--verify"], { cwd });
      assert.equal(damaged.status, 1);
      assert.match(
        damaged.stdout,
        /step 6 +damaged: its shard ".*shard-00001-of-00001\.safetensors"/,
      );
      const spoilt = await lockstep(["checkpoints", "out", "--diff", "4", "6"], { cwd });
      assert.equal(spoilt.status, 1, "what is damaged is not compared");
      assert.match(spoilt.stderr, /step-6" is damaged: its shard .* is not as it was written/);
      rmSync(join(out, "checkpoints/step-4/manifest.json"));
      const listed = await lockstep(["checkpoints", "out"], { cwd });
      assert.match(listed.stdout, /step 4 +.*damaged: it has no manifest\.json/);
      const exported = await ok(["export", "out", "--to", "model.onnx"], cwd);
      assert.match(exported.stdout, /the model after step 2/);
      const said = exported.stderr.split("\n").filter((line) => line !== "");
      assert.equal(said.length, 2, exported.stderr);
      for (const line of said)
        assert.match(line, /is damaged: .*\. The checkpoint before is taken/);
      const nothing = await lockstep(["checkpoints", "."], { cwd });
      assert.match(nothing.stderr, /has no checkpoints.*\[CHECKPOINT\]/s);
    }));

  test("export writes what the run wrote at its end, and any checkpoint before", () =>
    withFolder(files, async (cwd) => {
      const words = ["train", "run.ts", "--threads", "1", "--out", "out"];
      await ok([...words, "--steps", "4", "--workers", "2"], cwd);
      const at = (name: string) => readFileSync(join(cwd, name));
      const early = at("out/model.onnx");
      await ok(["resume", "out", "--steps", "6", "--change", "steps"], cwd);
      for (const name of ["model.onnx", "model.safetensors"]) {
        await ok(["export", "out", "--to", name], cwd);
        assert.deepEqual(at(name), at(`out/${name}`));
      }
      await ok(["export", "out", "--step", "4", "--to", "early.onnx"], cwd);
      assert.deepEqual(at("early.onnx"), early);
      const { tensors, metadata } = await readSafetensors(join(cwd, "model.safetensors"));
      assert.equal(metadata["format"], "pt", "as Hugging Face's tools expect it");
      assert.ok([...tensors.keys()].every((name) => !name.includes("/")));

      rmSync(join(cwd, "out/run.json"));
      const unknown = await lockstep(["export", "out", "--to", "again.onnx"], { cwd });
      assert.match(unknown.stderr, /does not record which command.*\n.*--run FILE/);
      await ok(["export", "out", "--to", "again.onnx", "--run", "run.ts"], cwd);
      assert.deepEqual(at("again.onnx"), at("model.onnx"));
      const other = runFiles({ model: "gpt({ layers: 1, width: 32, heads: 2, context: 16 })" });
      writeFileSync(join(cwd, "other.ts"), other["run.ts"] ?? "");
      const foreign = ["export", "out", "--to", "no.onnx", "--run", "other.ts"];
      const refused = await lockstep(foreign, { cwd });
      assert.match(refused.stderr, /is of the model gpt, graph \w+, but the run file has gpt/);
      const kind = await lockstep(["export", "out", "--to", "model.bin", "--run", "run.ts"], {
        cwd,
      });
      assert.match(kind.stderr, /must end with \.onnx or \.safetensors/);
    }));

  let whole = "";
  before(() =>
    withFolder(runFiles({ ...LARGER, steps: "12" }), async (cwd) => {
      await ok(["train", "run.ts", "--threads", "1", "--out", "whole"], cwd);
      whole = reportOf(join(cwd, "whole")).weightsSha256;
    }),
  );

  for (const workers of [1, 2]) {
    test(
      `kill -9 in the middle of a save of ${workers}: what is there is whole, the rest goes at the next start`,
      { skip: process.platform === "win32" ? "process groups" : false },
      () =>
        withFolder(runFiles({ ...LARGER, steps: "12" }), async (cwd) => {
          const words = ["train", "run.ts", "--threads", "1"];
          const sharing = ["--workers", String(workers)];
          const out = join(cwd, "out");
          let watch: NodeJS.Timeout | undefined;
          const onOutput = (_: string, child: ChildProcess) => {
            // As soon as the second draft is there.
            watch ??= setInterval(() => {
              if (checkpointsOf(out).length === 0 || draftsIn(out).length === 0) return;
              clearInterval(watch);
              process.kill(-(child.pid as number), "SIGKILL");
            }, 1);
          };
          const killed = await lockstep([...words, "--out", "out", ...sharing], {
            cwd,
            leads: true,
            onOutput,
          });
          clearInterval(watch);
          assert.equal(killed.signal, "SIGKILL", killed.stdout);
          assert.ok(checkpointsOf(out).length > 0);
          await allAreWhole(out);
          const { stdout } = await ok(["resume", "out"], cwd);
          assert.match(stdout, /continuing after step [1-9]/);
          assert.deepEqual(draftsIn(out), []);
          assert.equal(reportOf(out).weightsSha256, whole);
        }),
    );
  }

  test(
    "a disk that fills up in the middle of a run: the run says so and goes on",
    { skip: !existsSync("/usr/bin/prlimit") && "needs prlimit" },
    () =>
      withFolder(runFiles({ ...LARGER, steps: "8" }), async (cwd) => {
        const words = ["train", "run.ts", "--threads", "1", "--out", "out"];
        let limited = 0;
        const { status, stdout, stderr } = await lockstep(words, {
          cwd,
          onOutput: (_, { pid }) => {
            const worker = pid;
            if (worker === undefined || !existsSync(join(cwd, "out/metrics.jsonl"))) return;
            if (limited === worker) return;
            limited = worker;
            execFileSync("prlimit", ["--pid", String(worker), "--fsize=100000"]);
          },
        });
        assert.equal(status, 1, stdout);
        const told = /step \d+: no checkpoint was written, and those before are kept\. (.*)\n/.exec(
          stdout,
        );
        assert.match(
          told?.[1] ?? stdout,
          /annot write .*checkpoints.step-\d+": .*disk|file would be/,
        );
        assert.match(stdout, /step 8\/8/);
        assert.match(stderr, /annot write .*checkpoints.step-8": .*\[DISK_FULL\]/s);
        await allAreWhole(join(cwd, "out"));
        assert.ok(!checkpointsOf(join(cwd, "out")).includes(8));
        assert.deepEqual(draftsIn(join(cwd, "out")), []);
      }),
  );

  test(
    "a disk that is full in the middle of a save: the checkpoint before stays, and the next save tries again",
    { skip: !MOUNTS && "needs root, to mount a small disk" },
    () =>
      withFolder(runFiles({ ...LARGER, steps: "12" }), async (cwd) => {
        // A disk of its own, which only the run sees.
        const disk = join(cwd, "out");
        mkdirSync(disk, { recursive: true });
        const mount = 'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"';
        const through = ["unshare", "-m", "sh", "-c", mount, disk];
        const words = ["train", "run.ts", "--threads", "1", "--out", "out", "--keep-last", "1"];
        let filler: string | undefined;
        let isFree = false;
        const seen: number[] = [];
        const watch = (pid: number) => {
          const there = join(`/proc/${pid}/root`, disk);
          if (filler !== undefined || !existsSync(join(there, "checkpoints/step-1"))) return;
          filler = join(there, "filler");
          try {
            writeFileSync(filler, Buffer.alloc(12_000_000));
          } catch {
            // It takes what there is.
          }
        };
        let timer: NodeJS.Timeout | undefined;
        const { status, stdout, stderr } = await lockstep(words, {
          cwd,
          through,
          onOutput: (text, { pid = 0 }) => {
            timer ??= setInterval(() => watch(pid), 1);
            if (isFree || !text.includes("no checkpoint was written")) return;
            seen.push(...checkpointsOf(join(`/proc/${pid}/root`, disk)));
            isFree = true;
            rmSync(filler ?? "");
          },
        });
        clearInterval(timer);
        assert.equal(status, 0, stderr + stdout);
        assert.match(
          stdout,
          /step \d+: no checkpoint was written, and those before are kept\. Cannot write ".*step-\d+": the disk is full/,
        );
        assert.equal(seen.length, 1, "the checkpoint before is there");
        assert.match(stdout, /step 12\/12/);
        assert.doesNotMatch(stdout, /step 12: no checkpoint/);
      }),
  );
});

/** Whether a test may mount a disk where only its own processes see it. */
function canMount(): boolean {
  try {
    const mount = ["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    execFileSync("unshare", mount, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

async function withFiles(folder: string, body: () => Promise<void>): Promise<void> {
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  await body();
}
