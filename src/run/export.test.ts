/**
 * The end of a run: what could fail at the end fails at the beginning, and weights are kept
 * whatever fails.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { withFolder } from "../../test/support/folder.ts";
import { plainRun, reportOf, textRun, tryRun, WORDS } from "../../test/support/runs.ts";
import { arrays } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { cast, mul, reduceMean } from "../functional/index.ts";
import { mse, onnx } from "../import/index.ts";
import { modelOf, node, someNumbers } from "../import/raw.testing.ts";
import { defineModel } from "../nn/index.ts";
import { sgd } from "../optimizer/index.ts";
import { readSafetensors } from "../safetensors/index.ts";
import type { RunEvent } from "../telemetry/index.ts";
import { tensorFrom } from "../tensor/index.ts";
import { checkRoom, openRunFolder } from "./folder.ts";
import { defineRun } from "./run.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

/**
 * A model whose two samples share a softmax, so that any other batch size would mean something
 * else.
 */
function coupledRun(folder: string, batch: number, microBatches: number) {
  const file = join(folder, "coupled.onnx");
  writeFileSync(
    file,
    modelOf({
      opset: 17,
      inputs: { x: [2, 3] },
      outputs: ["y"],
      weights: { w: someNumbers([3, 2]) },
      nodes: [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"], { axis: 0 })],
    }),
  );
  return defineRun({
    name: "coupled",
    model: onnx(file, { loss: mse({ prediction: "y", target: "target" }) }),
    data: arrays(
      {
        x: someNumbers([8, 3], 2),
        target: tensorFrom("float32", [8, 2], new Array<number>(16).fill(1)),
      },
      { heldOut: 0 },
    ),
    optimizer: sgd({ learningRate: 0.1 }),
    batch,
    microBatches,
    steps: 2,
  });
}

test("a file of one batch size trains with it and exports it, and the run says so at its start and in its report", () =>
  withFolder({}, async (folder) => {
    const { events } = await tryRun(coupledRun(folder, 2, 1), { engine, folder });
    const started = events.find(({ type }) => type === "started");
    assert.ok(started?.type === "started");
    assert.match(
      started.notes.join(),
      /model\.onnx will take batches of 2 only: .*node ".*\(Softmax\): mixes samples/,
    );
    const report = reportOf(join(folder, "out"));
    assert.equal(report.modelBatch, 2);
    assert.deepEqual(report.notes, started.notes);
    const session = await ort.InferenceSession.create(join(folder, "out", "model.onnx"));
    const x = new ort.Tensor("float32", [1, 2, 3, 4, 5, 6], [2, 3]);
    const { y } = await session.run({ x });
    assert.deepEqual(y?.dims, [2, 2]);
  }));

test("a batch size that the file does not have is refused before the first step, and nothing is written", () =>
  withFolder({}, async (folder) => {
    await assert.rejects(tryRun(coupledRun(folder, 4, 1), { engine, folder }), {
      code: "ONNX_UNSUPPORTED",
      message: /exported for batches of 2.*\n.*a batch of 2 in one micro-batch/,
    });
    assert.ok(!existsSync(join(folder, "out", "checkpoints")));
  }));

test("a model.onnx that cannot be written leaves the weights and the checkpoint, and the error says so", () =>
  withFolder({}, async (folder) => {
    const out = join(folder, "out");
    const events: RunEvent[] = [];
    const failing = tryRun(plainRun, {
      engine,
      folder,
      stopAt: (event) => {
        events.push(event);
        // A folder takes the place of the file.
        if (event.type === "step" && event.step === 1) mkdirSync(join(out, "model.onnx"));
        return false;
      },
    });
    await assert.rejects(failing, { code: "IO_FAILED", message: /model\.onnx/ });
    const failed = events.at(-1);
    assert.ok(failed?.type === "failed");
    assert.deepEqual(failed.files, ["checkpoints", "model.safetensors"]);
    const { tensors } = await readSafetensors(join(out, "model.safetensors"));
    assert.equal(tensors.size, 4);
    assert.ok(
      existsSync(join(out, "checkpoints/step-4/manifest.json")) &&
        !existsSync(join(out, "report.json")),
    );
  }));

test("anything in the place of a file of the run is found before the first step", () =>
  withFolder({}, async (folder) => {
    const out = join(folder, "out");
    const stopAt = (event: RunEvent) => event.type === "step" && event.step === 2;
    await tryRun(plainRun, { engine, folder, stopAt });
    const events: RunEvent[] = [];
    rmSync(join(out, "model.onnx"));
    mkdirSync(join(out, "model.onnx"));
    const resumed = tryRun(plainRun, {
      engine,
      folder,
      beginning: "resume",
      stopAt: (event) => {
        events.push(event);
        return false;
      },
    });
    await assert.rejects(resumed, { code: "IO_FAILED", message: /model\.onnx" is not a file/ });
    assert.ok(!events.some(({ type }) => type === "step"));
  }));

test("a disk without room for the files of a run is found before the first step", () =>
  withFolder({}, async (folder) => {
    const place = await openRunFolder(folder);
    await checkRoom(place, 1);
    await assert.rejects(checkRoom(place, 2 ** 60), {
      code: "DISK_FULL",
      message: /need about 1,099,511,627,776 MiB, but the disk of ".*" has only [\d,]+ MiB left/,
    });
  }));

test("a text sample that the model cannot generate is refused before the first step", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const model = defineModel("flat", (m) => {
      const ids = cast(m.input("ids", [m.batch, 16], "int32"), "float32");
      const scaled = mul(ids, m.parameter("w", [16], { kind: "ones" }));
      return { loss: reduceMean(scaled, { keepdims: false }), scaled };
    });
    const run = defineRun({ ...textRun.stated, model });
    const events: RunEvent[] = [];
    const running = tryRun(run, {
      engine,
      folder,
      stopAt: (event) => {
        events.push(event);
        return false;
      },
    });
    await assert.rejects(running, { code: "INVALID_OPTION", message: /cannot generate text/ });
    assert.ok(!events.some(({ type }) => type === "step"));
  }));
