import assert from "node:assert/strict";
import { test } from "node:test";
import { text } from "../data/index.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { defineRun, overrideRun, sharedMicroBatches } from "./run.ts";

test("a run to be shared gets micro-batches by its batch alone, unless it states them", () => {
  const options = {
    model: gpt({ layers: 1, width: 8, heads: 1, context: 8 }),
    data: text("*.txt"),
    optimizer: adamw({}),
    steps: 1,
  };
  const of = (batch: number) => sharedMicroBatches(defineRun({ ...options, batch }));
  assert.deepEqual([1, 3, 4, 6, 8, 16, 20, 64, 512].map(of), [1, 1, 2, 2, 4, 8, 4, 8, 8]);
  const stated = defineRun({ ...options, batch: 64, microBatches: 2 });
  assert.equal(sharedMicroBatches(stated), 2);
  assert.equal(sharedMicroBatches(defineRun({ ...options, batch: 64 }), 4), 2, "of --batch");
  assert.equal(overrideRun(stated, { microBatches: 4 }).microBatches, 4);
});
