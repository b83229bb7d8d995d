/**
 * `lockstep job` and `lockstep train JOB`, tested through the command: a run file is executed once,
 * and its job trains anywhere.
 */
import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { agentProcess, reportIn, token, withProcesses } from "../support/hosts.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

const env = { LOCKSTEP_TOKEN: token };

/** A run file that reports each execution, and has another seed each time. */
const files = runFiles({ seed: "process.pid", microBatches: "2", steps: "4" });
const counted = {
  ...files,
  "run.ts": `import { appendFileSync } from "node:fs";
appendFileSync(new URL("executed.txt", import.meta.url), "once\\n");
${files["run.ts"] ?? ""}`,
};

async function ok(words: readonly string[], cwd: string): Promise<Ended> {
  const ended = await lockstep(words, { cwd, env });
  assert.equal(ended.status, 0, ended.stderr || ended.stdout);
  return ended;
}

async function fails(words: readonly string[], cwd: string, code: string, says: RegExp) {
  const ended = await lockstep(words, { cwd, env });
  assert.equal(ended.status, 1, ended.stdout);
  assert.ok(ended.stderr.includes(`[${code}]`), ended.stderr);
  assert.match(ended.stderr, says);
}

const executions = (cwd: string) => readFileSync(join(cwd, "executed.txt"), "utf8").length / 5;

describe("jobs", { concurrency: 2 }, () => {
  test("a job gives the same weights alone, with workers and on hosts, without its run file", () =>
    withFolder(counted, async (cwd) => {
      const made = await ok(["job", "run.ts", "--out", "job"], cwd);
      assert.match(
        made.stdout,
        /tiny: a job of \d+ files, .*data: \d+ samples.*lockstep train job/s,
      );
      rmSync(join(cwd, "run.ts"));
      const hashes: string[] = [];
      for (const words of [
        ["--threads", "1"],
        ["--workers", "2"],
      ]) {
        await ok(["train", "job", "--out", "out", "--anew", ...words], cwd);
        hashes.push(reportIn(cwd).weightsSha256);
      }
      // The agents have only the data.
      for (const host of ["a", "b"]) {
        mkdirSync(join(cwd, host));
        symlinkSync(join(cwd, "words.txt"), join(cwd, host, "words.txt"));
      }
      const roots = { words: ["--listen", "0", "--data-root", ".", "--data-root", ".."] };
      const start = (host: string) => agentProcess(join(cwd, host), roots);
      await withProcesses([start("a"), start("b")], async (hosts) => {
        await ok(["train", "job", "--out", "out", "--hosts", hosts.join(",")], cwd);
      });
      hashes.push(reportIn(join(cwd, "a")).weightsSha256);
      assert.equal(new Set(hashes).size, 1, hashes.join(" "));
      assert.equal(executions(cwd), 1);
    }));

  test("a job gives the weights of its run file, with and without options of the command line", () =>
    withFolder(runFiles({ microBatches: "2" }), async (cwd) => {
      for (const words of [[], ["--seed", "7", "--steps", "3"]]) {
        await ok(["train", "run.ts", "--out", "out", "--anew", ...words], cwd);
        const expected = reportIn(cwd).weightsSha256;
        await ok(["job", "run.ts", "--out", "job"], cwd);
        await ok(["train", "job", "--out", "out", "--anew", ...words], cwd);
        assert.equal(reportIn(cwd).weightsSha256, expected);
        await ok(["job", "run.ts", "--out", "job", ...words], cwd);
        await ok(["train", "job", "--out", "out", "--anew"], cwd);
        assert.equal(reportIn(cwd).weightsSha256, expected);
      }
    }));

  test("the command line says how workers share the step of a job, which changes no bits", () =>
    withFolder(runFiles({ microBatches: "2" }), async (cwd) => {
      await ok(["job", "run.ts", "--out", "job"], cwd);
      await ok(["train", "job", "--out", "out"], cwd);
      const expected = reportIn(cwd).weightsSha256;
      const train = ["train", "job", "--out", "out", "--anew", "--workers", "2"];
      for (const words of [
        ["--zero", "3"],
        ["--zero", "3", "--recompute", "blocks"],
      ]) {
        await ok([...train, ...words], cwd);
        assert.equal(reportIn(cwd).weightsSha256, expected);
      }
      const tooLittle = /more than the limit of 10 B/;
      await fails([...train, "--recompute", "10B"], cwd, "INVALID_OPTION", tooLittle);
      await withProcesses([agentProcess(cwd)], async (hosts) => {
        const words = ["train", "job", "--out", "out", "--hosts", hosts.join(",")];
        await ok([...words, "--anew", "--recompute", "blocks"], cwd);
        assert.equal(reportIn(cwd).weightsSha256, expected);
        await fails([...words, "--anew", "--recompute", "10B"], cwd, "INVALID_OPTION", tooLittle);
      });
      const planned = ["plan", "job", "--workers", "1", "--recompute", "blocks"];
      const { stdout } = await ok(planned, cwd);
      assert.match(stdout, /strategies: recompute blocks/);
      assert.match(stdout, /activations of a micro-batch: \S+ [kM]B in one piece/);
      assert.match(stdout, /in \d+ pieces: \S+ kB between them, .* computed again/);
    }));

  test("a run file is executed once for any number of workers and hosts, and no file is left", () =>
    withFolder(counted, async (cwd) => {
      const temporary = join(cwd, "temporary");
      mkdirSync(temporary);
      const words = ["train", "run.ts", "--out", "out"];
      const setting = { cwd, env: { ...env, TMPDIR: temporary } };
      const alone = await lockstep([...words, "--workers", "2"], setting);
      assert.equal(alone.status, 0, alone.stderr);
      assert.equal(executions(cwd), 1);
      const prefix = ["env", `TMPDIR=${temporary}`];
      const start = () => agentProcess(cwd, { prefix });
      await withProcesses([start(), start()], async (hosts) => {
        const shared = await lockstep([...words, "--hosts", hosts.join(",")], setting);
        assert.equal(shared.status, 0, shared.stderr);
      });
      assert.equal(executions(cwd), 2);
      assert.deepEqual(readdirSync(temporary), []);
    }));

  test("a stopped job resumes with another number of workers", () =>
    withFolder(runFiles({ microBatches: "2" }), async (cwd) => {
      await ok(["job", "run.ts", "--out", "job"], cwd);
      await ok(["train", "job", "--out", "whole"], cwd);
      await ok(["train", "job", "--out", "out", "--steps", "3"], cwd);
      await ok(["train", "job", "--out", "out", "--workers", "2", "--resume"], cwd);
      const [whole, parts] = ["whole", "out"].map((out) =>
        readFileSync(join(cwd, out, "model.safetensors")),
      );
      assert.ok(whole?.equals(parts as Buffer));
      const shown = await ok(["plan", "job", "--workers", "2"], cwd);
      assert.match(shown.stdout, /^tiny: gpt/);
    }));

  test("a fault in a job is reported, and nothing starts", () =>
    withFolder(runFiles({ microBatches: "2" }), async (cwd) => {
      await ok(["job", "run.ts", "--out", "job"], cwd);
      const train = ["train", "job", "--out", "out"];
      await fails([...train, "--batch", "8"], cwd, "INVALID_OPTION", /Make the job again/);
      await fails([...train, "--data", "*.txt"], cwd, "INVALID_OPTION", /Make the job again/);
      await fails(["job", "job", "--out", "other"], cwd, "INVALID_OPTION", /is already a job/);
      renameSync(join(cwd, "words.txt"), join(cwd, "kept.txt"));
      await fails(train, cwd, "DATA_EMPTY", /words\.txt/);
      symlinkSync("/etc/passwd", join(cwd, "words.txt"));
      await fails(train, cwd, "DATA_PLACE", /"words\.txt" lies outside/);
      await fails([...train, "--workers", "2"], cwd, "DATA_PLACE", /"words\.txt" lies outside/);
      rmSync(join(cwd, "words.txt"));
      renameSync(join(cwd, "kept.txt"), join(cwd, "words.txt"));
      appendFileSync(join(cwd, "words.txt"), "more of it ".repeat(100));
      await fails([...train, "--workers", "2"], cwd, "DATA_DIFFERS", /The data here is/);
      appendFileSync(join(cwd, "job", "train-2.onnx"), "\n");
      await fails([...train, "--workers", "2"], cwd, "FILE_CORRUPT", /train-2\.onnx/);
      assert.ok(!existsSync(join(cwd, "out")));
    }));
});
