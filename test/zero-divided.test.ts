/**
 * ZeRO 2 and 3 of models, and of sequences, that ranks divide among them: training follows that of
 * one process.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ModelDefinition } from "../src/nn/index.ts";
import { compare, engine, GPT, LLAMA, type Setting } from "./support/shared-runs.ts";

after(() => engine.close());

const SETTINGS: readonly (readonly [string, ModelDefinition, Setting])[] = [
  ["a tied GPT", GPT, { parallel: { shard: 2, tensor: 2 }, zero: 2 }],
  ["a tied GPT", GPT, { parallel: { shard: 2, tensor: 2 }, recompute: "blocks" }],
  ["a tied GPT", GPT, { parallel: { data: 2, shard: 2, tensor: 2 } }],
  ["a Llama", LLAMA, { parallel: { shard: 2, tensor: 2 } }],
  ["a Llama", LLAMA, { parallel: { shard: 2, context: 2 } }],
];

for (const [name, definition, setting] of SETTINGS) {
  test(`${name} trains on ${JSON.stringify(setting)} as one process does`, async () => {
    const [first] = await compare(definition, setting);
    assert.ok(first !== undefined);
    const { plan } = first.trainer;
    assert.ok(plan.held.length > 0 && plan.kept.length > 0, "the state is sharded");
  });
}
