/** The same weights, bit for bit, on any number of ranks: with dropout, with batch normalization, however bytes travel. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { adafactor, adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import { createTrainer, type FillBatch, type Trainer } from "../src/train/index.ts";
import { randomNumbers } from "./support/random.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const SAMPLES = 16;
const MICRO_BATCHES = 8;
const CLASSES = 10;
const STEPS = 4;

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "gpt with dropout": gpt({
    layers: 2,
    width: 32,
    heads: 2,
    context: 16,
    vocabulary: CLASSES,
    dropout: 0.1,
  }),
  "convnet with batch normalization": resnet({
    image: [3, 8, 8],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [8, 16],
    stem: "small",
  }),
};

/** Each sample depends on its position alone. */
function filling(positions: { readonly start: number; readonly end: number }): FillBatch {
  return (into) => {
    for (const [field, tensor] of Object.values(into).entries()) {
      const isClass = tensor.dtype === "int32";
      const width = elementCount(tensor.shape) / (positions.end - positions.start);
      const numbers: number[] = [];
      for (let position = positions.start; position < positions.end; position++) {
        const seed = field * 1000 + (position % SAMPLES);
        numbers.push(...randomNumbers(seed, width, [0, isClass ? CLASSES : 1]));
      }
      const values = isClass ? numbers.map(Math.floor) : numbers;
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
    }
  };
}

interface Outcome {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly weights: Readonly<Record<string, string>>;
}

async function trainRanks(
  definition: ModelDefinition,
  ranks: number,
  inPlace: boolean,
  optimizer: Optimizer = adamw({ learningRate: 1e-2 }),
): Promise<readonly Outcome[]> {
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, inPlace);
  const model = definition.build({ batch: SAMPLES / MICRO_BATCHES, mode: "train" });
  const make = (rank: number): Promise<Trainer> => {
    const group = simulated?.groups[rank];
    return createTrainer({
      engine,
      model,
      optimizer,
      clip: 1,
      microBatches: MICRO_BATCHES,
      ranks: group && { group },
    });
  };
  const trainers = await Promise.all(Array.from({ length: ranks }, (_, rank) => make(rank)));
  const outcomes = await Promise.all(trainers.map(runSteps));
  for (const trainer of trainers) trainer.close();
  await simulated?.close();
  return outcomes;
}

async function runSteps(trainer: Trainer): Promise<Outcome> {
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
    const fill = filling(trainer.ownPositions(positions));
    const { loss, gradientNorm } = await trainer.step({ positions, fill });
    losses.push(loss);
    norms.push(gradientNorm);
  }
  const { parameters, slots, states } = trainer.tensors();
  const tensors = Object.entries({ ...parameters, ...slots, ...states });
  const weights = tensors.map(([name, { bytes }]) => [name, Buffer.from(bytes).toString("base64")]);
  return { losses, norms, weights: Object.fromEntries(weights) as Outcome["weights"] };
}

for (const [name, definition] of Object.entries(MODELS)) {
  test(`${name}: any number of ranks gives the same bits`, async () => {
    const [alone] = await trainRanks(definition, 1, false);
    assert.ok(alone !== undefined);
    assert.notEqual(alone.losses[0], alone.losses[STEPS - 1]);
    for (const ranks of [2, 3, 4, 8]) {
      for (const inPlace of [true, false]) {
        const outcomes = await trainRanks(definition, ranks, inPlace);
        for (const [rank, outcome] of outcomes.entries()) {
          const where = `rank ${rank} of ${ranks}, ${inPlace ? "in place" : "by messages"}`;
          assert.deepEqual(outcome, alone, where);
        }
      }
    }
  });
}

for (const optimizer of [muon({ learningRate: 1e-2 }), adafactor({ learningRate: 1e-2 })]) {
  test(`${optimizer.name}: its update is shared, and gives the same bits`, async () => {
    const definition = MODELS["gpt with dropout"] as ModelDefinition;
    const [alone] = await trainRanks(definition, 1, false, optimizer);
    for (const ranks of [2, 3]) {
      for (const inPlace of [true, false]) {
        for (const outcome of await trainRanks(definition, ranks, inPlace, optimizer)) {
          assert.deepEqual(outcome, alone, `${ranks} ranks`);
        }
      }
    }
  });
}

test("more ranks than micro-batches are refused", async () => {
  const definition = MODELS["gpt with dropout"] as ModelDefinition;
  await assert.rejects(trainRanks(definition, 9, true), /8 micro-batches cannot be shared by 9/);
});
