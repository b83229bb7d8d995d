/**
 * Experts that ranks share: training follows that of one process, whatever the form of the mixture,
 * with other axes and with an optimizer state in parts.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { crossEntropy, onnx } from "../src/import/index.ts";
import { gpt, type ModelDefinition } from "../src/nn/index.ts";
import { encodeModel } from "../src/onnx/index.ts";
import { experts } from "../src/parallel/index.ts";
import { bindWeights, forwardGraph } from "../src/run/forward.ts";
import { drawWeights } from "./support/model.ts";
import { checkPass, stepOf } from "./support/pass-check.ts";
import { CLASSES, compare, engine, type Setting } from "./support/shared-runs.ts";

after(() => engine.close());

const SMALL = { layers: 1, width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const CAPACITY = gpt({ ...SMALL, activation: "swiglu", experts: { count: 4, capacity: 1 } });
const DROPLESS = gpt({ ...SMALL, dropout: 0.1, experts: { count: 4, zLoss: 1e-3 } });
const ONE = { count: 4, topK: 1 } as const;

const RUNS: readonly (readonly [string, ModelDefinition, Setting])[] = [
  ["a capacity", CAPACITY, { parallel: { context: 2, expert: 2 }, microBatches: 1 }],
  [
    "a capacity and a topK of 1",
    gpt({ ...SMALL, experts: { ...ONE, capacity: 1.25 } }),
    { parallel: { expert: 4 }, microBatches: 2, recompute: "blocks" },
  ],
  ["no capacity", DROPLESS, { parallel: { shard: 2, expert: 2 } }],
  ["a capacity", CAPACITY, { parallel: { data: 2, pipeline: 2, expert: 2 }, zero: 1 }],
  [
    "a topK of 1",
    gpt({ ...SMALL, experts: ONE }),
    { parallel: { expert: 2, tensor: 2 }, microBatches: 1 },
  ],
];

for (const [name, definition, setting] of RUNS) {
  test(`experts with ${name} train on ${JSON.stringify(setting)} as one process does`, async () => {
    const [first] = await compare(definition, setting);
    const tensors = [...(first?.trainer.plan.divided?.tensors.keys() ?? [])];
    const isOfExperts = (own: string) => own.includes(".experts.");
    assert.ok(tensors.filter(isOfExperts).length >= 4, "experts are divided");
    if (setting.parallel?.tensor === undefined) assert.ok(tensors.every(isOfExperts));
  });
}

test("the experts of a model from a file are found in its graph", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lockstep-test-experts-"));
  after(() => rm(folder, { recursive: true }));
  const built = CAPACITY.build({ batch: 4, mode: "eval", exported: true });
  const file = join(folder, "model.onnx");
  await writeFile(file, encodeModel(bindWeights(forwardGraph(built), drawWeights(built))));
  const loss = crossEntropy({ logits: "logits", labels: "labels" });
  checkPass(stepOf(onnx(file, { loss }), 4), [experts()], { expert: 2 });
});
