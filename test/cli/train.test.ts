/** `lockstep train` and `lockstep sample`, from a folder outside this package. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as ort from "onnxruntime-node";
import { createOrtEngine, evaluate } from "../../src/engine/index.ts";
import { importGraph } from "../../src/import/index.ts";
import { readModel } from "../../src/onnx/index.ts";
import { readSafetensors, weightsSha256 } from "../../src/safetensors/index.ts";
import { tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { withFolder } from "../support/folder.ts";
import { checkpointsOf, metricsOf, reportOf } from "../support/runs.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

/** A run with more steps than a test waits for. */
const long = { steps: "100000", checkpointEvery: "100000", evaluate: "{ every: 100000 }" };

/** Sends signals one right after the other, when the first step has been shown. */
function stopBySignals(cwd: string, signals: readonly NodeJS.Signals[]): Promise<Ended> {
  let left = signals;
  const onOutput = (stdout: string, child: ChildProcess) => {
    if (!stdout.includes("step 1/")) return;
    for (const signal of left) child.kill(signal);
    left = [];
  };
  return lockstep(["train", "run.ts"], { cwd, onOutput });
}

describe("lockstep train", { concurrency: 2 }, () => {
  test("train writes the folder of a run, and sample generates from it", () =>
    withFolder(runFiles(), async (cwd) => {
      const trained = await lockstep(["train", "run.ts", "--dump", "dump", "--threads", "1"], {
        cwd,
      });
      assert.equal(trained.status, 0, trained.stderr);
      assert.equal(trained.stderr, "");
      for (const words of [
        /^tiny: gpt, [\d,]+ parameters\n/,
        /step 1\/6 {2}loss \d\.\d{4} {2}[\d,.]+ tokens\/s {2}\d+ s left\n/,
        /Bits per byte of held-out text.*this model .*bigram model .*gzip -9 /s,
        /A sample:\n {2}the /,
        /Written to runs.tiny:\n {2}model\.onnx model\.safetensors tokenizer\.json checkpoints metrics\.jsonl\n {2}report\.json\n$/,
      ]) {
        assert.match(trained.stdout, words);
      }
      assert.ok(!trained.stdout.includes("\x1b"), "plain lines where there is no terminal");

      const out = join(cwd, "runs/tiny");
      const report = reportOf(out);
      assert.equal(report.threads, 1);
      assert.deepEqual([report.steps, report.samples, report.seed], [6, 24, 1]);
      for (const [name, value] of Object.entries(report)) {
        assert.ok(value !== null && value !== undefined, name);
      }
      const { tensors } = await readSafetensors(join(out, "model.safetensors"));
      assert.equal(report.weightsSha256, weightsSha256(tensors));
      const json = JSON.parse(readFileSync(join(out, "tokenizer.json"), "utf8")) as object;
      assert.ok("model" in json && "version" in json);
      assert.equal(metricsOf(out).filter(({ type }) => type === "step").length, 6);
      await modelRunsAnywhere(join(out, "model.onnx"));

      const dumped = readdirSync(join(cwd, "dump"));
      assert.ok(dumped.length >= 3, dumped.join(" "));
      for (const name of dumped) {
        assert.match(name, /^[\w.-]+\.onnx$/);
        const { graph } = readModel(join(cwd, "dump", name)).model;
        assert.ok(
          graph !== undefined &&
            graph.node.length > 0 &&
            graph.node.every((node) => node.name !== ""),
          name,
        );
      }

      const words = ["sample", "runs/tiny", "--prompt", "the dog ", "--tokens", "8"];
      const [one, two, other] = await Promise.all([
        lockstep(words, { cwd }),
        lockstep(words, { cwd }),
        lockstep([...words, "--seed", "7"], { cwd }),
      ]);
      assert.equal(one.status, 0, one.stderr);
      assert.ok(one.stdout.startsWith("the dog ") && one.stdout.endsWith("\n"));
      assert.equal(two.stdout, one.stdout);
      assert.notEqual(other.stdout, one.stdout);
      const inspected = await lockstep(["inspect", "runs/tiny/model.onnx"], { cwd });
      assert.match(inspected.stdout, /ids: int32\[batch, 16\].*Every operator has a gradient/s);
    }));

  test("options override the run; data may be files, folders or globs", () =>
    withFolder(
      {
        ...runFiles(),
        "corpus/[a] b.md": "wer das liest, ist da; ".repeat(60),
        "corpus/c.md": "x y z ".repeat(90),
      },
      async (cwd) => {
        const train = (...words: string[]) =>
          lockstep(["train", "run.ts", "--steps", "2", ...words], { cwd });
        const ends = await Promise.all([
          train(
            "--batch",
            "2",
            "--seed",
            "9",
            "--out",
            "one",
            "--data",
            "corpus/[a] b.md",
            "corpus/c.md",
          ),
          train("--out", "two", "--data", "corpus"),
          train("--out", "three", "--data", "corpus/*.md"),
        ]);
        for (const { status, stdout, stderr } of ends) {
          assert.equal(status, 0, stderr);
          assert.match(stdout, /data: 2 files,/);
        }
        const [one, two, three] = ["one", "two", "three"].map((out) => reportOf(join(cwd, out)));
        assert.deepEqual([one?.steps, one?.batch, one?.seed, one?.samples], [2, 2, 9, 4]);
        assert.equal(two?.weightsSha256, three?.weightsSha256);
        assert.notEqual(one?.weightsSha256, two?.weightsSha256);
      },
    ));

  test("Ctrl-C saves and says how to continue; two at once, as npm sends them, count as one", () =>
    withFolder(runFiles(long), async (cwd) => {
      const ended = await stopBySignals(cwd, ["SIGINT", "SIGINT"]);
      assert.deepEqual([ended.status, ended.stderr], [130, ""]);
      const step = Number(/Stopped after step (\d+) of 100000\./.exec(ended.stdout)?.[1]);
      const command = /Continue with:\n {2}(.*)\n$/.exec(ended.stdout)?.[1];
      assert.match(command ?? "", /^node \S*main\.js train run\.ts --resume$/);
      assert.ok(step >= 1 && !existsSync(join(cwd, "runs/tiny/report.json")));

      const steps = String(step + 2);
      const resumed = await lockstep(["train", "run.ts", "--resume", "--steps", steps], { cwd });
      assert.equal(resumed.status, 0, resumed.stderr);
      const lines = metricsOf(join(cwd, "runs/tiny")).filter(({ type }) => type === "step");
      assert.deepEqual(
        lines.map((line) => line.step),
        Array.from({ length: step + 2 }, (_, index) => index + 1),
      );
      const again = await lockstep(["train", "run.ts", "--resume", "--steps", steps], { cwd });
      assert.equal(again.status, 0, again.stderr);
      assert.match(again.stdout, /^Nothing to do: /);
    }));

  test("SIGTERM stops cleanly too, with its own status", () =>
    withFolder(runFiles(long), async (cwd) => {
      const ended = await stopBySignals(cwd, ["SIGTERM"]);
      assert.equal(ended.status, 143);
      assert.ok(checkpointsOf(join(cwd, "runs/tiny")).length > 0);
      const sampled = await lockstep(["sample", "runs/tiny", "--tokens", "2"], { cwd });
      assert.equal(sampled.status, 0, "what was stopped can be sampled from");
    }));
});

/** Compares the exported model in plain ONNX Runtime, at several batch sizes, with our engine. */
async function modelRunsAnywhere(path: string): Promise<void> {
  const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
  const engine = createOrtEngine({ threads: 2 });
  try {
    for (const batch of [1, 3, 5]) {
      const ids = Array.from({ length: batch * 16 }, (_, index) => (index * 37) % 128);
      const feeds = { ids: new ort.Tensor("int32", Int32Array.from(ids), [batch, 16]) };
      const plain = (await session.run(feeds))["logits"];
      const { graph } = importGraph(readModel(path), { dims: { batch } });
      const [logits] = Object.values(
        await evaluate(engine, graph, { ids: tensorFrom("int32", [batch, 16], ids) }),
      );
      assert.ok(plain !== undefined && logits !== undefined);
      assert.deepEqual(plain.dims, [batch, 16, 256]);
      const expected = toNumbers(logits);
      for (const [index, value] of Array.from(plain.data as Float32Array).entries()) {
        assert.ok(Math.abs(value - (expected[index] as number)) < 1e-5);
      }
    }
  } finally {
    await engine.close();
    await session.release();
  }
}
