/**
 * A model whose device annotations the official onnx package has written (`make_devices.py`): they
 * are read, followed by ranks, and travel with a job.
 */
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { arrays } from "../../src/data/index.ts";
import { formatInspection, inspectModel, mse, onnx, withDevices } from "../../src/import/index.ts";
import { makeJob, openJob, readJobFolder, writeJob } from "../../src/job/index.ts";
import { mlp } from "../../src/nn/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { applyStrategies } from "../../src/parallel/index.ts";
import { isPiece, type StepGraph, valueOf } from "../../src/plan/index.ts";
import { defineRun } from "../../src/run/index.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { withFolder } from "../support/folder.ts";
import { compare, engine, type Outcome } from "../support/shared-runs.ts";

after(() => engine.close());

const file = fileURLToPath(
  new URL("../../../test/onnx/fixtures/devices/mlp.onnx", import.meta.url),
);
const loss = mse({ prediction: "y", target: "target" });
const model = onnx(file, { loss });
const train = { batch: 2, mode: "train" } as const;

test("annotations of the official package are read", () => {
  const { devices, notes } = model.build(train);
  assert.deepEqual(devices?.configurations, [
    {
      name: "two stages",
      devices: 2,
      stages: 2,
      // The model has an output y, which is this value.
      stageOf: { hidden: 0, between: 0, bent: 1, y_1: 1 },
      parameters: {},
    },
    {
      name: "columns",
      devices: 4,
      stages: 0,
      stageOf: {},
      parameters: {
        "up.weight": { dim: 1, parts: 2 },
        "up.bias": { dim: 0, parts: 2 },
        "middle.weight": { dim: 0, parts: 2 },
        "down.weight": { parts: 1, dim: 0 },
        "down.bias": { parts: 1, dim: 0 },
      },
    },
  ]);
  const said = notes.filter((note) => note.includes("mlp.onnx")).join("\n");
  assert.match(said, /2 devices share it \("two stages"\): 2 pipeline stages\. .*pipeline: 2 }/);
  assert.match(said, /4 devices share it \("columns"\): 3 parameters cut in 2\. .*tensor: 2 }/);
  assert.match(said, /not followed are how 2 other tensors are cut/);
  assert.match(said, /It is not written to model\.onnx/);
  const shown = formatInspection(inspectModel(file));
  assert.match(shown, /Devices "two stages": 2; 4 nodes are annotated; 2 pipeline stages/);
  assert.match(shown, /Devices "columns": 4; 3 nodes are annotated; 0 pipeline stages, 5 tensors/);
});

/** The step of the ranks, as strategies have rewritten it. */
function stepOf([first]: readonly Outcome[]): { step: StepGraph; reason: string } {
  const { step, parallel } = (first as Outcome).trainer.planned;
  return {
    step: applyStrategies(parallel.strategies, step, parallel.mesh),
    reason: parallel.reason,
  };
}

test("ranks hold parameters as the file says, and train as one process does", async () => {
  const { step, reason } = stepOf(await compare(model, { parallel: { tensor: 2 } }));
  const on = (name: string) => valueOf(step, `parameter:${name}`).placement["tensor"];
  assert.deepEqual(on("up.weight"), { shard: 1 });
  assert.deepEqual(on("up.bias"), { shard: 0 });
  assert.deepEqual(on("middle.weight"), { shard: 0 });
  // A search would cut this matrix, too.
  assert.equal(on("down.weight"), undefined);
  assert.match(reason, /5 parameters are held as .*mlp\.onnx \("columns"\) says\./);
});

test("stages are those of the file, and train to the bits of one process", async () => {
  const same = { losses: 0, norms: 0 };
  const { step, reason } = stepOf(await compare(model, { parallel: { pipeline: 2 } }, same));
  const parametersOf = (stage: number) =>
    step.tasks
      .filter(isPiece)
      .filter((piece) => piece.stage?.stage === stage && piece.stage.direction === "F")
      .flatMap(({ inputs }) => inputs.filter((name) => name.startsWith("parameter:")));
  assert.deepEqual(parametersOf(0), [
    "parameter:up.weight",
    "parameter:up.bias",
    "parameter:middle.weight",
  ]);
  assert.deepEqual(parametersOf(1), ["parameter:down.weight", "parameter:down.bias"]);
  assert.match(reason, /Stages are those of .*mlp\.onnx \("two stages"\)\./);
});

test("annotations for other numbers are refused, unless they are left out", async () => {
  await assert.rejects(compare(model, { parallel: { tensor: 4 } }), {
    code: "INVALID_OPTION",
    message: /tensor 4 does not fit .*mlp\.onnx, which cuts parameters for 2 parts/,
  });
  const without = onnx(file, { loss, devices: false });
  assert.equal(without.build(train).devices, undefined);
  const { reason } = stepOf(await compare(without, { parallel: { tensor: 4 } }));
  assert.equal(reason, "As stated: tensor 4.");
});

test("wrong annotations are refused when the model is built", () =>
  withFolder({}, (folder) => {
    const wrong = join(folder, "wrong.onnx");
    const bytes = readFileSync(file);
    const at = bytes.lastIndexOf("columns");
    bytes.write("rows...", at);
    writeFileSync(wrong, bytes);
    const build = (devices: boolean) => onnx(wrong, { loss, devices }).build(train);
    assert.throws(() => build(true), {
      code: "ONNX_PARSE",
      message: /node "up", names the configuration "columns", which is not there/,
    });
    build(false);
    assert.match(formatInspection(inspectModel(wrong)), /annotations are wrong/);
    return Promise.resolve();
  }));

test("a job has what its model's file says", () =>
  withFolder({}, async (folder) => {
    copyFileSync(file, join(folder, "m.onnx"));
    const numbers = (count: number) => Array.from({ length: count }, (_, at) => Math.sin(at));
    const run = defineRun({
      name: "said",
      model: onnx(join(folder, "m.onnx"), { loss }),
      data: arrays({
        x: tensorFrom("float32", [8, 6], numbers(48)),
        target: tensorFrom("float32", [8, 3], numbers(24)),
      }),
      optimizer: adamw(),
      batch: 4,
      microBatches: 2,
      steps: 1,
    });
    const { signal } = new AbortController();
    const { files } = await makeJob(run, { baseDir: folder, root: folder, signal });
    await writeJob(join(folder, "job"), files);
    const { run: opened } = openJob(readJobFolder(join(folder, "job")));
    assert.deepEqual(opened.model.build(train).devices, run.model.build(train).devices);
  }));

test("a file about another model is refused", () => {
  const other = withDevices(mlp({ inputs: [3], hidden: [4], outputs: 2 }), file);
  assert.throws(() => other.build(train), {
    code: "INVALID_OPTION",
    message: /says nothing of how devices share mlp: its names are those of another model/,
  });
});
