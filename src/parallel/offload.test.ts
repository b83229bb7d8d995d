/** Which values an offload moves, and what a program then has in memory and on disk. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { evenTopology } from "../mesh/index.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import {
  buildStep,
  describeStep,
  hashStep,
  type StepJson,
  stepFromJson,
  stepToJson,
} from "../plan/index.ts";
import { applyStrategies, chooseParallel, type ParallelOptions } from "./index.ts";

const model = gpt({ layers: 2, width: 32, heads: 2, context: 8, vocabulary: 11 }).build({
  batch: 2,
  mode: "train",
});
const alone = buildStep({ model, optimizer: adamw(), microBatches: 4, clip: 1 });

function stepOf(workers: number, options: ParallelOptions = {}) {
  const { mesh, strategies } = chooseParallel({
    topology: evenTopology(workers, 1),
    step: alone,
    optimizer: adamw(),
    machine: {
      memory: Number.POSITIVE_INFINITY,
      lanes: 1,
      flopsPerSecond: 8e10,
      link: { latency: 1e-4, bytesPerSecond: 1e9 },
    },
    offload: "disk",
    ...options,
  });
  return applyStrategies(strategies, alone, mesh);
}

/** The roles of the values on disk, and how many values of each role. */
function away(step: typeof alone): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { role, space } of step.values.values()) {
    if (space === "disk") found[role] = (found[role] ?? 0) + 1;
  }
  return found;
}

const parameters = model.parameters.length;
/** Two slots of each parameter, before the step and after it. */
const slots = 4 * parameters;

test("slots go to disk on any number of workers, and nothing else with zero below 3", () => {
  assert.deepEqual(away(alone), {});
  for (const workers of [1, 2, 4]) assert.deepEqual(away(stepOf(workers)), { slot: slots });
  for (const zero of [1, 2] as const) assert.deepEqual(away(stepOf(2, { zero })), { slot: slots });
});

test("with zero 3 sharded parameters go, too, and what is gathered of them stays", () => {
  const step = stepOf(2, { zero: 3 });
  assert.deepEqual(away(step), { slot: slots, parameter: 2 * parameters });
  const gathered = [...step.values].filter(([name]) => name.startsWith("gathered"));
  assert.ok(gathered.length >= parameters);
  assert.ok(gathered.every(([, { space }]) => space === undefined));
  // One worker has nobody to gather from: its pass reads all parameters in place.
  assert.deepEqual(away(stepOf(1, { zero: 3 })), { slot: slots });
});

test("a step tells in print, in JSON and in its hash what lies on disk", () => {
  const step = stepOf(2, { zero: 3 });
  assert.match(describeStep(step).at(-1) ?? "", /over "?shard"?.* on disk$/);
  assert.notEqual(hashStep(step), hashStep(stepOf(2, { zero: 3, offload: undefined })));
  const json = JSON.parse(JSON.stringify(stepToJson(step))) as StepJson;
  assert.equal(hashStep(stepFromJson(json)), hashStep(step));
  const [name = "", value] = Object.entries(json.values)[0] ?? [];
  const odd = { ...json, values: { ...json.values, [name]: { ...value, space: "tape" } } };
  assert.throws(() => stepFromJson(odd as StepJson), /lies in "tape"/);
});
