/**
 * Pipelines whose replicas share out gradients (ZeRO-2) and parameters (ZeRO-3) of each stage: the
 * bits of one process, and less memory.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { CLASSES, engine, GPT, type Setting, train } from "./support/shared-runs.ts";

after(() => engine.close());

const RESNET = resnet({
  image: [3, 8, 8],
  classes: CLASSES,
  blocks: [1, 1],
  channels: [8, 16],
  stem: "small",
});
const shard2: Setting = { parallel: { shard: 2, pipeline: 2 }, microBatches: 8, bucketBytes: 4000 };
const DROPOUT = gpt({ layers: 3, width: 24, heads: 6, context: 12, vocabulary: CLASSES, dropout: 0.1 });

const RUNS: readonly (readonly [string, ModelDefinition, Setting])[] = [
  ["a tied GPT", GPT, { ...shard2, zero: 2 }],
  ["a tied GPT", GPT, { ...shard2, zero: 3 }],
  ["a GPT", DROPOUT, { ...shard2, zero: 3, timetable: "zb-v" }],
  ["a ResNet", RESNET, { ...shard2, zero: 2, timetable: "interleaved" }],
];

for (const [name, definition, setting] of RUNS) {
  test(`${name} on ${JSON.stringify(setting)} has the bits of one process`, async () => {
    const { microBatches = 8 } = setting;
    const [alone] = await train(definition, { microBatches });
    for (const { losses, norms, parameters } of await train(definition, setting)) {
      assert.deepEqual(losses, alone?.losses);
      assert.deepEqual(norms, alone?.norms);
      assert.deepEqual(parameters, alone?.parameters);
    }
  });
}
