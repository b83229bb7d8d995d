import assert from "node:assert/strict";
import { test } from "node:test";
import { imageRun } from "../../test/support/runs.ts";
import { text } from "../data/index.ts";
import { crossEntropy, matmul, transpose } from "../functional/index.ts";
import { defineModel, gpt, linear, type ModelDefinition } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { settleMicroBatches } from "./micro-batches.ts";
import { defineRun } from "./run.ts";

const options = {
  model: gpt({ layers: 1, width: 8, heads: 1, context: 8 }),
  data: text("*.txt"),
  optimizer: adamw({}),
  steps: 1,
};

test("a run gets its number of micro-batches from its batch, unless it states one", () => {
  const of = (batch: number) => settleMicroBatches(defineRun({ ...options, batch })).microBatches;
  assert.deepEqual([1, 3, 4, 6, 8, 16, 20, 64, 512].map(of), [1, 1, 2, 2, 4, 8, 4, 8, 8]);
  const stated = defineRun({ ...options, batch: 64, microBatches: 2 });
  assert.equal(settleMicroBatches(stated).microBatches, 2);
  assert.equal(settleMicroBatches(stated, "4").microBatches, 2, "the checkpoint is then compared");
});

test("a resumed run has the micro-batches of its checkpoint", () => {
  const run = defineRun({ ...options, batch: 64 });
  assert.equal(settleMicroBatches(run, "1").microBatches, 1);
  assert.equal(settleMicroBatches(run, "3").microBatches, 8, "they do not divide the batch");
});

test("the batch stays whole if its loss cannot be computed from parts", () => {
  // The loss compares each sample with all others of its batch.
  const contrast = defineModel("contrast", (m) => {
    const x = m.input("x", [m.batch, 4]);
    const label = m.input("label", [m.batch], "int32");
    const own = linear(m.child("own"), x, { outputs: 3 });
    const other = linear(m.child("other"), x, { outputs: 3 });
    return { loss: crossEntropy(matmul(own, transpose(other, [1, 0])), label) };
  });
  const run = (model: ModelDefinition) => defineRun({ ...options, model, batch: 16 });
  assert.equal(settleMicroBatches(run(contrast)).microBatches, 1);
  assert.equal(settleMicroBatches(run(options.model)).microBatches, 8);
});

test("a model with batch statistics is cut into micro-batches only on request", () => {
  const { microBatches: _, ...unstated } = imageRun.stated;
  assert.equal(settleMicroBatches(defineRun(unstated)).microBatches, 1);
});
