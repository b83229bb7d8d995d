/**
 * Models of which no machine has all. Stages of a pipeline on several machines send what they hand to
 * each other, and end with the bits of one process; parts of matrices and of sequences follow it.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import type { Transport } from "../src/transport/index.ts";
import {
  assertNear,
  CLASSES,
  engine,
  GPT,
  type Outcome,
  type Setting,
  train,
} from "./support/shared-runs.ts";

after(() => engine.close());

const STEPS = 3;
const RESNET = resnet({
  image: [3, 8, 8],
  classes: CLASSES,
  blocks: [1, 1],
  channels: [8, 16],
  stem: "small",
});

const EXPERTS = gpt({
  layers: 1,
  width: 24,
  heads: 2,
  context: 12,
  vocabulary: CLASSES,
  experts: { count: 4, capacity: 1 },
});

const MODELS = {
  "a tied GPT": GPT,
  "a ResNet": RESNET,
  "a mixture of experts": EXPERTS,
} as const;

const known = new Map<string, Promise<Outcome>>();

function aloneOf(definition: ModelDefinition, microBatches: number): Promise<Outcome> {
  const key = `${Object.values(MODELS).indexOf(definition)} ${microBatches}`;
  const found =
    known.get(key) ??
    train(definition, { microBatches }, { steps: STEPS }).then(([one]) => one as Outcome);
  known.set(key, found);
  return found;
}

const TWO = [[0], [1]];
const PAIRS = [
  [0, 1],
  [2, 3],
];

const EACH = [[0], [1], [2], [3]];

type Case = readonly [keyof typeof MODELS, Setting, Transport["nodes"]];

const STAGED: readonly Case[] = [
  ["a tied GPT", { parallel: { pipeline: 2 } }, TWO],
  ["a tied GPT", { parallel: { pipeline: 2 }, timetable: "gpipe" }, TWO],
  ["a tied GPT", { parallel: { pipeline: 3 }, timetable: "1f1b" }, [[0, 1], [2]]],
  ["a ResNet", { parallel: { pipeline: 2 }, timetable: "interleaved" }, TWO],
  ["a tied GPT", { parallel: { pipeline: 2 }, timetable: "zb-v" }, TWO],
  ["a tied GPT", { parallel: { pipeline: 4 } }, PAIRS],
  ["a tied GPT", { parallel: { data: 2, pipeline: 2 }, zero: 1 }, EACH],
];

for (const [name, setting, nodes] of STAGED) {
  test(`${name} on ${JSON.stringify(setting)}, ${JSON.stringify(nodes)}, has the bits of one process`, async () => {
    const { microBatches = 8 } = setting;
    const alone = await aloneOf(MODELS[name], microBatches);
    const of = { microBatches, ...setting };
    const outcomes = await train(MODELS[name], of, { steps: STEPS, nodes });
    for (const { losses, norms } of outcomes) {
      assert.deepEqual(losses, alone.losses);
      assert.deepEqual(norms, alone.norms);
    }
    assert.deepEqual(outcomes[0]?.parameters, alone.parameters);
  });
}

const PARTED: readonly Case[] = [
  ["a tied GPT", { parallel: { pipeline: 2, tensor: 2 } }, PAIRS],
  ["a tied GPT", { parallel: { shard: 2, tensor: 2 } }, EACH],
  ["a tied GPT", { parallel: { context: 2 } }, TWO],
  ["a tied GPT", { parallel: { context: 2 }, attention: "ring" }, TWO],
  ["a mixture of experts", { parallel: { expert: 2 } }, TWO],
];

for (const [name, setting, nodes] of PARTED) {
  test(`${name} on ${JSON.stringify(setting)}, ${JSON.stringify(nodes)}, follows one process`, async () => {
    const alone = await aloneOf(MODELS[name], 4);
    const outcomes = await train(MODELS[name], setting, { steps: STEPS, nodes });
    for (const { losses, norms } of outcomes) {
      assertNear(losses, alone.losses, 1e-4, "losses");
      assertNear(norms, alone.norms, 1e-3, "norms");
    }
    for (const [parameter, wanted] of Object.entries(alone.parameters)) {
      assertNear(outcomes[0]?.parameters[parameter] ?? [], wanted, 2e-3, parameter);
    }
  });
}
