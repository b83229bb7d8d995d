/**
 * Runs of models from files, as jobs: the graphs and weights of the file travel with the job, and
 * train to the same bits without the file.
 */
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { arrays } from "../../src/data/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import { typeOf } from "../../src/graph/index.ts";
import { crossEntropy, mse, type OnnxOptions, onnx } from "../../src/import/index.ts";
import { makeJob, openJob, readJobFolder, writeJob } from "../../src/job/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { defineRun, type Run } from "../../src/run/index.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf, tryRun } from "../support/runs.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const BATCH = 8;
const SAMPLES = 40;

/** Makes a run of a file, with samples for whatever the model asks for. */
function runOf(file: string, options: OnnxOptions, microBatches: number): Run {
  const model = onnx(file, options);
  const size = BATCH / microBatches;
  const { graph, batch } = model.build({ batch: size, mode: "train" });
  const fields = batch.map((name) => {
    const { dtype, shape } = typeOf(graph, name);
    const whole = [(SAMPLES * (shape[0] as number)) / size, ...shape.slice(1)];
    const count = whole.reduce((product, dim) => product * dim, 1);
    const isFloat = dtype === "float32";
    const numbers = Array.from({ length: count }, (_, i) => (isFloat ? Math.sin(i * 12.9) : i % 2));
    return [name, tensorFrom(dtype, whole, numbers)] as const;
  });
  return defineRun({
    name: "file",
    model,
    data: arrays(Object.fromEntries(fields)),
    optimizer: adamw({ learningRate: 0.01 }),
    batch: BATCH,
    microBatches,
    steps: 3,
  });
}

const labels = crossEntropy({ logits: "output", labels: "labels" });
const target = mse({ prediction: "output", target: "target" });
const CASES: readonly (readonly [string, OnnxOptions, number])[] = [
  ["fixtures/mlp-17", { loss: target }, 2],
  ["fixtures/encoder-17", { loss: labels, dims: { length: 6 } }, 4],
  ["fixtures/cnn-train-15", { loss: labels, trainable: /^head\./ }, 1],
  // This file has one batch size.
  ["batch/masked-4", { loss: target }, 2],
  ["batch/patches-1-old", { loss: target }, 4],
];

for (const [name, options, microBatches] of CASES) {
  test(`${name}: the job trains without the file to the weights of the run`, () =>
    withFolder({}, async (folder) => {
      const source = join(import.meta.dirname, `../../../test/onnx/${name}.onnx`);
      const file = join(folder, "model.onnx");
      copyFileSync(source, file);
      const run = runOf(file, options, microBatches);
      const { signal } = new AbortController();
      const { files } = await makeJob(run, { baseDir: folder, root: folder, signal });
      const job = join(folder, "job");
      await writeJob(job, files);
      await tryRun(run, { engine, folder });
      rmSync(file);
      const opened = openJob(readJobFolder(job));
      opened.check();
      const out = join(folder, "of-job");
      await tryRun(opened.run, { engine, folder, out });
      const [expected, found] = [reportOf(join(folder, "out")), reportOf(out)];
      assert.equal(found.weightsSha256, expected.weightsSha256);
      assert.deepEqual([found.notes, found.modelBatch], [expected.notes, expected.modelBatch]);
      for (const made of ["model.onnx", "model.safetensors"]) {
        const [one, other] = [join(folder, "out"), out].map((path) =>
          readFileSync(join(path, made)),
        );
        assert.ok(one?.equals(other as Buffer), made);
      }
    }));
}
