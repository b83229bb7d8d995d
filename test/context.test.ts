/**
 * Sequences that ranks divide among them: training follows that of one process, with every model and
 * in many combinations of axes.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { bert, gpt, type ModelDefinition } from "../src/nn/index.ts";
import { CLASSES, compare, engine, GPT, type Setting } from "./support/shared-runs.ts";

after(() => engine.close());

const BERT = bert({ layers: 2, width: 24, heads: 2, context: 12, vocabulary: CLASSES + 1 });

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT with tied weights": GPT,
  "a GPT with dropout": gpt({
    layers: 2,
    width: 24,
    heads: 6,
    context: 12,
    vocabulary: CLASSES,
    dropout: 0.1,
    tied: false,
  }),
  "a Llama with grouped heads": gpt({
    layers: 2,
    width: 24,
    heads: 6,
    kvHeads: 2,
    context: 12,
    vocabulary: CLASSES,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
  }),
  "a GPT with blocks of queries": gpt({
    layers: 2,
    width: 24,
    heads: 6,
    context: 12,
    vocabulary: CLASSES,
    queryBlock: 4,
  }),
  "BERT, whose loss has a count of its own": BERT,
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
];

for (const [name, definition] of Object.entries(MODELS)) {
  for (const setting of definition === GPT ? SETTINGS : SETTINGS.slice(0, 1)) {
    test(`${name} trains on ${JSON.stringify(setting)} as one process does`, async () => {
      await compare(definition, setting);
    });
  }
}
assert.ok(true);
