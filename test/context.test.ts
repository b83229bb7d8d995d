/**
 * Sequences that ranks divide among them: training follows that of one process, with every model and
 * in many combinations of axes.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { crossEntropy, onnx } from "../src/import/index.ts";
import { bert, gpt, type ModelDefinition, mlp } from "../src/nn/index.ts";
import { CLASSES, compare, engine, GPT, type Setting, train } from "./support/shared-runs.ts";

after(() => engine.close());

const small = { layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT with tied weights": GPT,
  "a GPT with dropout, whose head is its own": gpt({ ...small, dropout: 0.1, tied: false }),
  "a Llama with grouped heads": gpt({
    ...small,
    kvHeads: 2,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
  }),
  "a GPT with blocks of queries": gpt({ ...small, queryBlock: 4 }),
  "BERT, whose loss has a count of its own": bert({
    layers: 2,
    width: 24,
    heads: 2,
    context: 12,
    vocabulary: CLASSES + 1,
    dropout: 0.1,
  }),
  "an encoder from PyTorch": onnx(
    join(import.meta.dirname, "../../test/onnx/fixtures/encoder-17.onnx"),
    {
      dims: { length: 8 },
      loss: crossEntropy({ logits: "output", labels: "labels" }),
    },
  ),
};

const SETTINGS: readonly Setting[] = [
  { parallel: { context: 2 } },
  { parallel: { context: 3 } },
  { parallel: { context: 4 } },
  { parallel: { data: 2, context: 2 } },
  { parallel: { context: 2 }, microBatches: 1 },
  { parallel: { data: 2, context: 2 }, zero: 1 },
  { parallel: { shard: 2, context: 2 }, zero: 1 },
  { parallel: { context: 2 }, recompute: "blocks" },
  { parallel: { context: 2, tensor: 2 } },
  { parallel: { data: 2, context: 2, tensor: 2 }, zero: 1 },
  { parallel: { context: 4 }, attention: "ring" },
  // As after a loss that leaves fewer workers than divide a sequence.
  { parallel: { data: 2 }, attention: "ring" },
  { parallel: { shard: 2, context: 2 }, attention: "ring" },
];

for (const [name, definition] of Object.entries(MODELS)) {
  for (const setting of definition === GPT ? SETTINGS : SETTINGS.slice(0, 1)) {
    test(`${name} trains on ${JSON.stringify(setting)} as one process does`, async () => {
      await compare(definition, setting);
    });
  }
}

async function refused(setting: Setting, message: RegExp, definition = GPT): Promise<void> {
  await assert.rejects(train(definition, setting), message);
}

test("what does not go together with sequences that are divided is refused", async () => {
  await refused({ parallel: { context: 5 } }, /cannot cut sequences of 12 tokens evenly/);
  const table = mlp({ inputs: 4, hidden: [8], outputs: CLASSES });
  await refused({ parallel: { context: 2 } }, /which the batches of this run do not have/, table);
});
