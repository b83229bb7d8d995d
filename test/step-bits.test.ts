/** The same weights, bit for bit, on one thread and on two, for each number of micro-batches. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { gpt, type Model } from "../src/nn/index.ts";
import { adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import { type BatchFields, createTrainer } from "../src/train/index.ts";
import { randomNumbers } from "./support/random.ts";

const SAMPLES = 8;
const VOCABULARY = 65;

function model(batch: number): Model {
  const built = gpt({ layers: 2, width: 64, heads: 4, context: 32, vocabulary: VOCABULARY }).build({
    batch,
    mode: "train",
  });
  const parameters = built.parameters.map((parameter, index) => {
    const { dtype, shape } = parameter.type;
    if (shape.length < 2) return parameter;
    const values = randomNumbers(index, elementCount(shape), [-0.05, 0.05]);
    const initializer = { kind: "tensor", tensor: tensorFrom(dtype, shape, values) } as const;
    return { ...parameter, initializer };
  });
  return { ...built, parameters };
}

function fill(step: number): (into: BatchFields) => void {
  return (into) => {
    for (const [index, tensor] of Object.values(into).entries()) {
      const ids = randomNumbers(step * 2 + index, elementCount(tensor.shape), [0, VOCABULARY]);
      tensor.bytes.set(tensorFrom("int32", tensor.shape, ids.map(Math.floor)).bytes);
    }
  };
}

async function trained(
  threads: number,
  microBatches: number,
  optimizer: Optimizer,
): Promise<{ losses: number[]; weights: Record<string, string> }> {
  const engine = createOrtEngine({ threads });
  try {
    const trainer = await createTrainer({
      engine,
      model: model(SAMPLES / microBatches),
      optimizer,
      clip: 1,
      microBatches,
    });
    const losses: number[] = [];
    for (let step = 0; step < 6; step++) {
      const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
      losses.push((await trainer.step({ positions, fill: fill(0) })).loss);
    }
    const weights = Object.fromEntries(
      Object.entries(trainer.tensors().parameters).map(([name, { bytes }]) => [
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

for (const microBatches of [1, 4]) {
  for (const optimizer of [adamw({ learningRate: 1e-2 }), muon({ learningRate: 1e-2 })]) {
    test(`${optimizer.name}, ${microBatches} micro-batches: the same bits on 1 and 2 threads`, async () => {
      const two = await trained(2, microBatches, optimizer);
      const one = await trained(1, microBatches, optimizer);
      assert.deepEqual(one, two);
      assert.ok((one.losses.at(-1) as number) < (one.losses[0] as number));
    });
  }
}
