/**
 * Models that ranks divide among them: training follows that of one process, with every model and in
 * many combinations of axes.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gpt, type ModelDefinition } from "../src/nn/index.ts";
import { CLASSES, compare, engine, GPT, LLAMA, type Setting } from "./support/shared-runs.ts";

after(() => engine.close());

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  gpt: GPT,
  "a GPT with dropout, whose head is its own": gpt({
    layers: 2,
    width: 24,
    heads: 6,
    context: 12,
    vocabulary: CLASSES,
    dropout: 0.1,
    tied: false,
  }),
  "a Llama with grouped heads": LLAMA,
};

const SETTINGS: readonly Setting[] = [
  { parallel: { tensor: 2 } },
  { parallel: { tensor: 3 } },
  { parallel: { tensor: 4 } },
  { parallel: { data: 2, tensor: 2 } },
  { parallel: { data: 2, tensor: 2 }, zero: 1 },
  { parallel: { shard: 2, tensor: 2 }, zero: 1 },
  { parallel: { tensor: 2 }, recompute: "blocks" },
  { parallel: { data: 2, tensor: 2 }, zero: 1, recompute: "blocks" },
];

for (const [name, definition] of Object.entries(MODELS)) {
  for (const setting of definition === GPT ? SETTINGS : SETTINGS.slice(0, 1)) {
    test(`${name} trains on ${JSON.stringify(setting)} as one process does`, async () => {
      const [first] = await compare(definition, setting);
      assert.ok((first?.trainer.plan.divided?.tensors.size ?? 0) > 10, "tensors are divided");
    });
  }
}
