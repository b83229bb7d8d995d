/**
 * The weights are the same, bit for bit, on one thread and on two, for each number of
 * micro-batches.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOrtEngine, evaluate } from "../src/engine/index.ts";
import { mul, reduceSum } from "../src/functional/index.ts";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import { type BatchFields, createTrainer } from "../src/train/index.ts";
import { randomNumbers } from "./support/random.ts";

const SAMPLES = 8;
const CLASSES = 10;

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  gpt: gpt({ layers: 2, width: 64, heads: 4, context: 32, vocabulary: CLASSES, dropout: 0.1 }),
  resnet: resnet({
    image: [3, 16, 16],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [8, 16],
    stem: "small",
  }),
};

/** Fills the same samples at every step, so that they are learned by heart. */
function fill(into: BatchFields): void {
  for (const [index, tensor] of Object.values(into).entries()) {
    const isClass = tensor.dtype === "int32";
    const values = randomNumbers(index, elementCount(tensor.shape), [0, isClass ? CLASSES : 1]);
    const numbers = isClass ? values.map(Math.floor) : values;
    tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, numbers).bytes);
  }
}

async function trained(
  model: ModelDefinition,
  threads: number,
  microBatches: number,
  optimizer: Optimizer,
): Promise<{ losses: number[]; weights: Record<string, string> }> {
  const engine = createOrtEngine({ threads });
  try {
    const trainer = await createTrainer({
      engine,
      model: model.build({ batch: SAMPLES / microBatches, mode: "train" }),
      optimizer,
      clip: 1,
      microBatches,
    });
    const losses: number[] = [];
    for (let step = 0; step < 6; step++) {
      const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
      losses.push((await trainer.step({ positions, fill })).loss);
    }
    const { parameters, slots, states } = await trainer.read();
    const weights = Object.fromEntries(
      Object.entries({ ...parameters, ...slots, ...states }).map(([name, { bytes }]) => [
        name,
        Buffer.from(bytes).toString("base64"),
      ]),
    );
    trainer.close();
    return { losses, weights };
  } finally {
    await engine.close();
  }
}

for (const [name, model] of Object.entries(MODELS)) {
  for (const microBatches of [1, 4]) {
    for (const optimizer of [adamw({ learningRate: 2e-3 }), muon({ learningRate: 1e-2 })]) {
      test(`${name}, ${optimizer.kind}, ${microBatches} micro-batches: the same bits on 1 and 2 threads`, async () => {
        const two = await trained(model, 2, microBatches, optimizer);
        const one = await trained(model, 1, microBatches, optimizer);
        assert.deepEqual(one, two);
        assert.ok(Math.min(...one.losses) < (one.losses[0] as number), "the loss fell");
      });
    }
  }
}

test("the squares of a tile have the same bits whatever tiles are summed beside it", async () => {
  // Ranks that share an update sum other blocks than one rank alone does.
  const tile = 32_768;
  const engine = createOrtEngine({ threads: 1 });
  const squares = (tiles: number) => {
    const builder = newBuilder("squares");
    const x = builder.input("x", { dtype: "float32", shape: [tiles, tile] });
    return builder.build([reduceSum(mul(x, x), { axes: [1], keepdims: false })]);
  };
  const numbers = randomNumbers(1, 16 * tile, [-1, 1]);
  const sumsOf = async (first: number, tiles: number) => {
    const part = numbers.slice(first * tile, (first + tiles) * tile);
    const x = tensorFrom("float32", [tiles, tile], part);
    const [sums] = Object.values(await evaluate(engine, squares(tiles), { x }));
    return Buffer.from(sums?.bytes ?? []);
  };
  const whole = await sumsOf(0, 16);
  for (const tiles of [1, 4]) {
    const parts: Buffer[] = [];
    for (let first = 0; first < 16; first += tiles) parts.push(await sumsOf(first, tiles));
    assert.ok(Buffer.concat(parts).equals(whole), `${tiles} at a time`);
  }
  await engine.close();
});
