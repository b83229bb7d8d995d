/**
 * Pipelines whose stages lie on several machines: what stages hand to each other is sent, and ranks
 * end with the bits of one process.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import type { Transport } from "../src/transport/index.ts";
import { CLASSES, engine, GPT, type Outcome, type Setting, train } from "./support/shared-runs.ts";

after(() => engine.close());

const STEPS = 3;
const DEEP = gpt({ layers: 4, width: 8, heads: 2, context: 6, vocabulary: CLASSES, dropout: 0.1 });
const RESNET = resnet({
  image: [3, 8, 8],
  classes: CLASSES,
  blocks: [1, 1],
  channels: [8, 16],
  stem: "small",
});

const known = new Map<string, Promise<Outcome>>();

/** Every rank has the losses and norms of one process, and rank 0 its weights. */
async function hasBitsOfOne(
  definition: ModelDefinition,
  setting: Setting,
  nodes: Transport["nodes"],
) {
  const { microBatches = 8 } = setting;
  const key = `${definition === GPT} ${definition === DEEP} ${microBatches}`;
  const one =
    known.get(key) ??
    train(definition, { microBatches }, { steps: STEPS }).then(([own]) => own as Outcome);
  known.set(key, one);
  const alone = await one;
  const outcomes = await train(definition, { microBatches, ...setting }, { steps: STEPS, nodes });
  for (const { losses, norms } of outcomes) {
    assert.deepEqual(losses, alone.losses);
    assert.deepEqual(norms, alone.norms);
  }
  assert.deepEqual(outcomes[0]?.parameters, alone.parameters);
  return outcomes;
}

const TWO = [[0], [1]];
const PAIRS = [
  [0, 1],
  [2, 3],
];

const CASES: readonly (readonly [string, ModelDefinition, Setting, Transport["nodes"]])[] = [
  ["a tied GPT", GPT, { parallel: { pipeline: 2 } }, TWO],
  ["a tied GPT", GPT, { parallel: { pipeline: 2 }, timetable: "gpipe" }, TWO],
  ["a tied GPT", GPT, { parallel: { pipeline: 2 }, recompute: "blocks" }, TWO],
  ["a tied GPT", GPT, { parallel: { pipeline: 3 }, timetable: "1f1b" }, [[0, 1], [2]]],
  ["a ResNet", RESNET, { parallel: { pipeline: 2 }, timetable: "interleaved" }, TWO],
  ["a deep GPT", DEEP, { parallel: { pipeline: 2 }, timetable: "zb-v" }, TWO],
  ["a deep GPT", DEEP, { parallel: { pipeline: 4 } }, PAIRS],
  ["a tied GPT", GPT, { parallel: { data: 2, pipeline: 2 } }, [[0], [1], [2], [3]]],
  ["a tied GPT", GPT, { parallel: { data: 2, pipeline: 2 }, zero: 1 }, [[0], [1], [2], [3]]],
  ["a tied GPT", GPT, { parallel: { shard: 2, pipeline: 2 }, zero: 1 }, PAIRS],
];

for (const [name, definition, setting, nodes] of CASES) {
  const where = nodes.map((ranks) => ranks.length).join(" + ");
  test(`${name} on ${JSON.stringify(setting)} with ${where} ranks of nodes has the bits of one process`, async () => {
    await hasBitsOfOne(definition, setting, nodes);
  });
}
