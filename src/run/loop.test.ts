import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { after, test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import {
  checkpointsOf,
  imageRun,
  metricsOf,
  newestOf,
  plainRun,
  reportOf,
  shardsOf,
  textRun,
  tryRun,
  WORDS,
} from "../../test/support/runs.ts";
import { text } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { readSafetensors, weightsSha256 } from "../safetensors/index.ts";
import type { RunEvent } from "../telemetry/index.ts";
import { toNumbers } from "../tensor/index.ts";
import { overrideRun, type Run } from "./run.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const files = { "words.txt": WORDS };
const atStep = (step: number) => (event: RunEvent) => event.type === "step" && event.step === step;

for (const [run, stopAt] of [
  [textRun, 4],
  [imageRun, 2],
] as const) {
  test(`${run.name}: a stopped and resumed run has the weights of one that never stopped`, () =>
    withFolder(files, async (folder) => {
      const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
      await tryRun(run, { engine, folder, out: whole });
      const first = await tryRun(run, { engine, folder, out: parts, stopAt: atStep(stopAt) });
      assert.equal(first.result.outcome, "stopped");
      assert.ok(!existsSync(join(parts, "report.json")), "it is not finished");
      const second = await tryRun(run, { engine, folder, out: parts, beginning: "resume" });
      assert.equal(second.result.outcome, "finished");

      const [one, two] = [reportOf(whole), reportOf(parts)];
      assert.equal(two.weightsSha256, one.weightsSha256);
      assert.equal(two.validationLoss, one.validationLoss);
      const steps = metricsOf(parts).filter(({ type }) => type === "step");
      assert.deepEqual(
        steps.map(({ step, loss }) => [step, loss]),
        metricsOf(whole)
          .filter(({ type }) => type === "step")
          .map(({ step, loss }) => [step, loss]),
      );
    }));
}

test("seconds add up over the parts of a resumed run", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    // Each reading of this clock takes 10 ms, so seconds count readings.
    await tryRun(textRun, { engine, folder, stopAt: atStep(7) });
    const { seconds: before } = await newestOf(out);
    await tryRun(textRun, { engine, folder, beginning: "resume" });
    const { seconds, tokensPerSecond } = reportOf(out);
    assert.ok(before > 0.1 && seconds > before && seconds < 2 * before, `${before} ${seconds}`);
    assert.ok(Math.abs((tokensPerSecond ?? 0) - (8 * 4 * 16) / seconds) < 1e-6);
  }));

test("a killed run resumes from its last checkpoint, and each step is in the metrics once", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const failure = new Error("as good as kill -9");
    const failing = tryRun(textRun, {
      engine,
      folder,
      stopAt: (event) => {
        if (event.type === "step" && event.step === 6) throw failure;
        return false;
      },
    });
    await assert.rejects(failing, failure);
    assert.deepEqual(checkpointsOf(out), [3, 6]);
    rmSync(join(out, "checkpoints/step-6"), { recursive: true });
    const draft = join(out, "checkpoints", `.step-6.${"0".repeat(12)}.tmp`);
    mkdirSync(draft);
    writeFileSync(join(draft, "rank-0.part"), "half");
    writeFileSync(join(out, `.report.json.${"0".repeat(12)}.tmp`), "half");
    const metrics = readFileSync(join(out, "metrics.jsonl"), "utf8");
    writeFileSync(join(out, "metrics.jsonl"), `${metrics}{"type":"step","st`);

    await tryRun(textRun, { engine, folder, beginning: "resume" });
    const steps = metricsOf(out).filter(({ type }) => type === "step");
    assert.deepEqual(
      steps.map(({ step }) => step),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    const left = readdirSync(out, { recursive: true }).map(String);
    assert.ok(!left.some((name) => name.endsWith(".tmp")), "nothing is left over");
    assert.deepEqual(checkpointsOf(out), [6, 8]);
  }));

test("a finished run continues with more steps, and does nothing with the same steps", () =>
  withFolder(files, async (folder) => {
    await tryRun(textRun, { engine, folder });
    const again = await tryRun(textRun, { engine, folder, beginning: "resume" });
    assert.equal(again.result.outcome, "complete");
    assert.deepEqual(
      again.events.map(({ type }) => type),
      ["complete"],
    );
    const more = overrideRun(textRun, { steps: 10 });
    const resume = { engine, folder, beginning: "resume" } as const;
    await assert.rejects(tryRun(more, resume), {
      code: "CHECKPOINT",
      message: /with steps 8, but this run has 10.*--change steps/s,
    });
    const { events } = await tryRun(more, { ...resume, changes: ["steps"] });
    const changes = [{ name: "steps", before: "8", now: "10" }];
    assert.deepEqual(
      events.find(({ type }) => type === "changed"),
      {
        type: "changed",
        step: 8,
        changes,
      },
    );
    assert.equal(reportOf(join(folder, "out")).steps, 10);
    assert.equal(events.filter(({ type }) => type === "step").length, 2);
    const fewer = await tryRun(textRun, { engine, folder, beginning: "resume" });
    assert.equal(fewer.result.outcome, "complete");
  }));

test("no run is ever deleted: an unfinished one is guarded, others are moved aside", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    await tryRun(textRun, { engine, folder, stopAt: atStep(4) });
    const [name = ""] = shardsOf(out);
    const checkpoint = readFileSync(name);
    await assert.rejects(tryRun(textRun, { engine, folder }), { code: "RUN_EXISTS" });
    assert.deepEqual(readFileSync(name), checkpoint);

    await tryRun(textRun, { engine, folder, beginning: "anew" });
    const moved = join(out, "earlier-1", relative(out, name));
    assert.deepEqual(readFileSync(moved), checkpoint);
    assert.equal(metricsOf(out)[0]?.type, "started");
    await tryRun(textRun, { engine, folder });
    assert.ok(existsSync(join(out, "earlier-2/report.json")), "the finished one was moved aside");
    assert.ok(existsSync(join(out, "report.json")));
  }));

test("a stop during start-up writes nothing", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const controller = new AbortController();
    const stopping = { ...textRun, data: text("words.txt") };
    const build = stopping.model.build.bind(stopping.model);
    const model = {
      name: "gpt",
      build: (options: Parameters<typeof build>[0]) => {
        controller.abort(new Error("enough"));
        return build(options);
      },
    };
    const events: RunEvent[] = [];
    const { openRunFolder, train } = await import("./index.ts");
    const result = await train(
      { ...stopping, model },
      {
        engine,
        folder: await openRunFolder(out),
        baseDir: folder,
        beginning: "new",
        signal: controller.signal,
        now: () => 0,
        onEvent: (event) => events.push(event),
      },
    );
    assert.equal(result.outcome, "stopped");
    assert.deepEqual(events, [{ type: "stopped", step: 0, steps: 8, out, files: [] }]);
    assert.ok(!existsSync(out));
  }));

test("a run that was stopped after its last step resumes at its end", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const last = (event: RunEvent) => event.type === "checkpoint" && event.step === 8;
    const { result } = await tryRun(textRun, { engine, folder, stopAt: last });
    assert.equal(result.outcome, "stopped");
    assert.ok(!existsSync(join(out, "report.json")));
    const { events } = await tryRun(textRun, { engine, folder, beginning: "resume" });
    assert.ok(!events.some(({ type }) => type === "step"));
    const lines = metricsOf(out).filter(({ type }) => type === "step");
    assert.equal(reportOf(out).trainLoss, lines.at(-1)?.loss, "as after the last step");
    assert.ok((reportOf(out).sample ?? "").startsWith("the "));
  }));

test("the report has exactly the expected fields, and the SHA-256 of the weights", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    await tryRun(plainRun, { engine, folder });
    const report = reportOf(out);
    const { parameters, steps, samples, validationLoss, tokensPerSecond, sample } = report;
    assert.deepEqual(
      { parameters, steps, samples, validationLoss, tokensPerSecond, sample },
      {
        parameters: 64 * 4 + 4 + 4 * 3 + 3,
        steps: 4,
        samples: 32,
        validationLoss: null,
        tokensPerSecond: null,
        sample: null,
      },
    );
    assert.ok(Number.isFinite(report.trainLoss) && report.seconds > 0);
    const { tensors } = await readSafetensors(join(out, "model.safetensors"));
    assert.equal(report.weightsSha256, weightsSha256(tensors), "there are no states");
    assert.deepEqual(readdirSync(out).sort(), [
      "checkpoints",
      "metrics.jsonl",
      "model.onnx",
      "model.safetensors",
      "report.json",
    ]);
  }));

test("a loss that is not finite stops the run, names step and tensor, and keeps the last good weights", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const wild: Run = { ...textRun, optimizer: adamw({ learningRate: 1e30 }) };
    const events: RunEvent[] = [];
    const failing = tryRun(wild, {
      engine,
      folder,
      stopAt: (event) => {
        events.push(event);
        return false;
      },
    });
    await assert.rejects(failing, (error) => {
      assert.ok(error instanceof LockstepError && error.code === "NOT_FINITE");
      assert.match(error.message, /^Step \d+: .*not finite is "[^"]+"/);
      return true;
    });
    const failed = events.at(-1);
    assert.ok(failed?.type === "failed" && failed.code === "NOT_FINITE");
    const { tensors } = await readSafetensors(join(out, "model.safetensors"));
    for (const [name, tensor] of tensors) {
      assert.ok(toNumbers(tensor).every(Number.isFinite), name);
    }
    assert.ok(existsSync(join(out, "model.onnx")) && existsSync(join(out, "tokenizer.json")));
    assert.ok(!existsSync(join(out, "report.json")));
  }));

test("a checkpoint that does not fit is refused and changes nothing", async (t) => {
  await withFolder(files, async (folder) => {
    const out = join(folder, "out");
    await tryRun(textRun, { engine, folder, stopAt: atStep(2) });
    const [path = ""] = shardsOf(out);
    const good = readFileSync(path);
    const model = gpt({ layers: 1, width: 32, heads: 2, context: 16, dropout: 0.2 });
    const wider = { ...textRun, model };
    const cases: [string, Run, Buffer, string, RegExp][] = [
      ["another seed", overrideRun(textRun, { seed: 5 }), good, "CHECKPOINT", /seed 1.* 5/],
      ["another batch", overrideRun(textRun, { batch: 6 }), good, "CHECKPOINT", /batch 4.* 6/],
      [
        "another model",
        wider,
        good,
        "CHECKPOINT",
        /with model gpt, graph \w+, but this run has gpt/,
      ],
      ["cut short", textRun, good.subarray(0, good.length - 8), "CHECKPOINT", /shard.*shorter/],
      ["no header", textRun, good.subarray(0, 4), "CHECKPOINT", /shard.*shorter/],
      ["garbage", textRun, Buffer.alloc(good.length, 7), "CHECKPOINT", /shard.* not as it was/],
      ["empty", textRun, Buffer.alloc(0), "CHECKPOINT", /shard.*shorter/],
    ];
    for (const [name, run, bytes, code, words] of cases) {
      await t.test(name, async () => {
        writeFileSync(path, bytes);
        const before = readdirSync(out);
        await assert.rejects(tryRun(run, { engine, folder, beginning: "resume" }), (error) => {
          assert.ok(error instanceof LockstepError, String(error));
          assert.equal(error.code, code);
          assert.match(error.message, words);
          return true;
        });
        assert.deepEqual(readdirSync(out), before);
        assert.deepEqual(readFileSync(path), Buffer.from(bytes));
      });
    }
    writeFileSync(path, good);
    await assert.rejects(
      tryRun(wider, { engine, folder, beginning: "resume", changes: ["model"] }),
      { code: "CHECKPOINT", message: /belongs to a different model: / },
    );
  });
});

test("a stop during validation takes effect within a batch, and the steps are saved", () =>
  withFolder(files, async (folder) => {
    const run = { ...textRun, evaluate: { every: 3, samples: 1e6 } };
    const out = join(folder, "out");
    const { result, events } = await tryRun(run, { engine, folder, stopAt: atStep(3) });
    assert.equal(result.outcome, "stopped");
    assert.ok(!events.some(({ type }) => type === "evaluated"));
    const saved = events.filter(({ type }) => type === "checkpoint");
    assert.deepEqual(
      saved.map((event) => event.type === "checkpoint" && event.step),
      [3],
    );
    assert.equal((await newestOf(out)).step, 3);
  }));

test("a stop while data is being opened takes effect at once", () =>
  withFolder(files, async (folder) => {
    const controller = new AbortController();
    const { openRunFolder, train } = await import("./index.ts");
    const training = train(textRun, {
      engine,
      folder: await openRunFolder(join(folder, "out")),
      baseDir: folder,
      beginning: "new",
      signal: controller.signal,
      now: () => 0,
      onEvent: () => undefined,
    });
    controller.abort(new Error("enough"));
    assert.deepEqual(await training, { outcome: "stopped" });
  }));
