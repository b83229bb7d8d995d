/**
 * Pipelines: ranks compute the stages of a model, and end with the bits of one process, whatever the
 * timetable, the number of stages and the axes beside them.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { bert, gpt, type ModelDefinition, mlp, resnet } from "../src/nn/index.ts";
import { type BufferSpec, residentBytes } from "../src/program/index.ts";
import { CLASSES, engine, GPT, type Outcome, type Setting, train } from "./support/shared-runs.ts";

after(() => engine.close());

const known = new Map<string, Promise<Outcome>>();

function aloneOf(name: string, definition: ModelDefinition, microBatches: number) {
  const key = `${name} ${microBatches}`;
  const found =
    known.get(key) ?? train(definition, { microBatches }).then(([one]) => one as Outcome);
  known.set(key, found);
  return found;
}

/** Every rank has the losses, the norms and, read from all ranks, the weights of one process. */
async function hasBitsOfOne(name: string, definition: ModelDefinition, setting: Setting) {
  const { microBatches = 8 } = setting;
  const alone = await aloneOf(name, definition, microBatches);
  const outcomes = await train(definition, { microBatches, ...setting });
  for (const { losses, norms, parameters } of outcomes) {
    assert.deepEqual(losses, alone.losses);
    assert.deepEqual(norms, alone.norms);
    assert.deepEqual(parameters, alone.parameters);
  }
  return outcomes;
}

const LARGE = gpt({
  layers: 3,
  width: 24,
  heads: 6,
  context: 12,
  vocabulary: CLASSES,
  dropout: 0.1,
});

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT with tied weights": GPT,
  "a GPT with dropout": LARGE,
  "a Llama": gpt({
    layers: 2,
    width: 24,
    heads: 6,
    kvHeads: 2,
    context: 12,
    vocabulary: CLASSES,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
  }),
  "BERT, whose loss has a count of its own": bert({
    layers: 2,
    width: 24,
    heads: 2,
    context: 12,
    vocabulary: CLASSES + 1,
    dropout: 0.1,
  }),
  "a ResNet with running statistics": resnet({
    image: [3, 8, 8],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [8, 16],
    stem: "small",
  }),
};

/** As a person may edit it: rank 0 is ahead, and rank 1 computes what nobody waits for at the end. */
const EDITED = `
0: 0F0 0F1 0F2 0F3 0B0 0F4 0B1 0F5 0B2 0F6 0B3 0F7 0B4 0B5 0B6 0B7
1: 1F0 1B0 1F1 1B1 1F2 1B2 1F3 1B3 1F4 1B4 1F5 1B5 1F6 1B6 1F7 1B7 1W0 1W1 1W2 1W3 1W4 1W5 1W6 1W7
`;

/** Rank 0 has stages 0 and 2, and rank 1 has one stage, whose W it computes at the end. */
const UNEVEN = `
0: 0F0 0F1 2F0 2B0 2F1 2B1 0B0 0B1 0F2 0F3 2F2 2B2 2F3 2B3 0B2 0B3
1: 1F0 1F1 1B0 1B1 1F2 1F3 1B2 1B3 1W0 1W1 1W2 1W3
`;

const SETTINGS: readonly Setting[] = [
  { parallel: { pipeline: 2 } },
  { parallel: { pipeline: 2 }, timetable: "gpipe" },
  { parallel: { pipeline: 2 }, timetable: EDITED },
  { parallel: { pipeline: 3 }, timetable: "1f1b" },
  { parallel: { pipeline: 3 } },
  { parallel: { pipeline: 4 }, microBatches: 4 },
  { parallel: { data: 2, pipeline: 2 } },
  { parallel: { data: 2, pipeline: 2 }, zero: 1 },
  { parallel: { pipeline: 2 }, microBatches: 2 },
  { parallel: { pipeline: 2 }, recompute: "blocks" },
  { parallel: { data: 2, pipeline: 3 }, recompute: "blocks" },
  { parallel: { pipeline: 2 }, timetable: "interleaved" },
  { parallel: { pipeline: 2 }, timetable: "interleaved", recompute: "blocks" },
  // Pipelines of 3, 3 and 2 micro-batches, whose sums are several parts of the tree.
  { parallel: { data: 3, pipeline: 2 }, timetable: "zb-v" },
  { parallel: { pipeline: 2 }, timetable: UNEVEN, microBatches: 4 },
];

/** With more than one stage on each of two or four ranks. */
const SEVERAL: readonly (readonly [string, Setting])[] = [
  ["a Llama", { parallel: { pipeline: 2 }, timetable: "zb-v" }],
  ["a ResNet with running statistics", { parallel: { pipeline: 2 }, timetable: "interleaved" }],
  ["a deep GPT", { parallel: { pipeline: 4 }, timetable: "zb-v" }],
];

const DEEP = gpt({ layers: 8, width: 8, heads: 2, context: 6, vocabulary: CLASSES });

test("a GPT without dropout, whose embedding has no block of its own, is computed again in stages", async () => {
  await hasBitsOfOne("a GPT with tied weights", GPT, {
    parallel: { pipeline: 2 },
    recompute: "blocks",
  });
});

for (const [name, definition] of Object.entries(MODELS)) {
  for (const setting of definition === LARGE ? SETTINGS : SETTINGS.slice(0, 1)) {
    test(`${name} on ${JSON.stringify(setting)} has the bits of one process`, async () => {
      await hasBitsOfOne(name, definition, setting);
    });
  }
}

for (const [name, setting] of SEVERAL) {
  test(`${name} on ${JSON.stringify(setting)} has the bits of one process`, async () => {
    await hasBitsOfOne(name, MODELS[name] ?? DEEP, setting);
  });
}

test("each rank has the parameters and the optimizer state of its stage", async () => {
  const outcomes = await hasBitsOfOne("a Llama", MODELS["a Llama"] as ModelDefinition, {
    parallel: { pipeline: 2 },
  });
  for (const { trainer } of outcomes) {
    const { buffers } = trainer.plan;
    const spec = buffers.get("parameters") as BufferSpec;
    assert.ok(residentBytes(spec) < 0.65 * spec.byteLength, "about half of the parameters");
  }
});

test("with zero 1 each part of the optimizer state is with one rank", async () => {
  const setting: Setting = { parallel: { shard: 2, pipeline: 2 }, zero: 1, recompute: "blocks" };
  const outcomes = await hasBitsOfOne("a GPT with dropout", LARGE, setting);
  const slots = outcomes.map(({ trainer: { plan } }) => plan.buffers.get("slot.0.exp_avg"));
  const sizes = slots.map((spec) => residentBytes(spec as BufferSpec));
  const whole = slots[0]?.byteLength as number;
  assert.equal(
    sizes.reduce((sum, own) => sum + own, 0),
    whole,
  );
  assert.ok(Math.max(...sizes) < whole / 2, `${sizes.join(", ")} bytes of ${whole}`);
});

async function refused(setting: Setting, message: RegExp, definition = GPT): Promise<void> {
  await assert.rejects(train(definition, { microBatches: 8, ...setting }), message);
}

test("what a pipeline cannot do is refused, and says what to do", async () => {
  const pipeline = { pipeline: 2 };
  await refused({ parallel: pipeline, microBatches: 1 }, /needs 2 micro-batches or more/);
  await refused({ parallel: { pipeline: 2, data: 2 }, microBatches: 2 }, /for each of 2 pipelines/);
  const small = mlp({ inputs: 4, hidden: [8], outputs: CLASSES });
  await refused({ parallel: { pipeline: 4 } }, /cut into 4 stages with parameters/, small);
  await refused({ parallel: pipeline, recompute: { memory: 1e9 } }, /a limit for recompute yet/);
  const later: Setting = { parallel: pipeline, recompute: "blocks", timetable: "zb-h1" };
  await refused(later, /recompute does not go together with zb-h1/);
  await refused({ parallel: pipeline, timetable: "1f2b" }, /line 1 begins with "0:"/);
  const short = "0: 0F0 0B0\n1: 1F0 1B0";
  await refused({ parallel: pipeline, timetable: short }, /for each micro-batch from 0 to 7/);
  const two = `${UNEVEN}1: 0F0`;
  await refused({ parallel: pipeline, timetable: two }, /line 3 begins with "2:"/);
  const many = UNEVEN.replace("1F0", "0F0");
  await refused({ parallel: pipeline, timetable: many }, /stage 0 in those of 0 and 1/);
  const first = EDITED.replaceAll(/0B(\d)/g, "0B$1 0W$1");
  await refused({ parallel: pipeline, timetable: first }, /Leave out 0W|has 0W, but stage 0/);
});
