/**
 * Loss curves of small models, kept as text with one line for each step. A change of operators,
 * gradients, initial values, optimizers or the order of data shows here. LOCKSTEP_GOLDEN=write
 * writes the files anew; the commit must say why a curve moved.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { bert, convnet, dlrm, gpt, type ModelDefinition, mlp, resnet } from "../../src/nn/index.ts";
import { adamw, muon, type Optimizer, sgd } from "../../src/optimizer/index.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { createTrainer, type FillBatch } from "../../src/train/index.ts";
import { randomNumbers } from "../support/random.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

interface Curve {
  readonly model: ModelDefinition;
  readonly optimizer: Optimizer;
  readonly microBatches?: number;
  /** Integers of a batch field are below this. */
  readonly limits: Readonly<Record<string, number>>;
  /**
   * The relative tolerance after the first steps. ReLU networks amplify the last bits of a machine
   * more than smooth ones. Default: 1e-3.
   */
  readonly tolerance?: number;
}

const size = { layers: 2, width: 32, heads: 4, context: 16, vocabulary: 32 };

const CURVES: Readonly<Record<string, Curve>> = {
  gpt: {
    model: gpt(size),
    optimizer: adamw({ learningRate: 3e-3 }),
    limits: { ids: 32, targets: 32 },
  },
  "gpt-llama-dropout-muon": {
    model: gpt({
      ...size,
      kvHeads: 2,
      positions: "rotary",
      activation: "swiglu",
      norm: "rms",
      tied: false,
      bias: false,
      dropout: 0.1,
    }),
    optimizer: muon({ learningRate: 5e-3 }),
    microBatches: 2,
    limits: { ids: 32, targets: 32 },
  },
  bert: {
    model: bert({ ...size, layers: 1, vocabulary: 33 }),
    optimizer: adamw({ learningRate: 3e-3 }),
    limits: { ids: 32 },
  },
  resnet: {
    model: resnet({
      image: [1, 8, 8],
      classes: 4,
      blocks: [1, 1],
      channels: [4, 8],
      stem: "small",
    }),
    optimizer: sgd({ learningRate: 0.05, momentum: 0.9 }),
    microBatches: 2,
    limits: { label: 4 },
    tolerance: 1e-2,
  },
  mlp: {
    model: mlp({ inputs: 8, hidden: [16], outputs: 4, activation: "gelu" }),
    optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }),
    limits: { label: 4 },
  },
  convnet: {
    model: convnet({ image: [1, 8, 8], classes: 4, channels: [4, 8], hidden: 16 }),
    optimizer: adamw({ learningRate: 1e-2 }),
    limits: { label: 4 },
    tolerance: 1e-2,
  },
  dlrm: {
    model: dlrm({ dense: 3, categories: [5, 7], width: 4, bottom: [8], top: [8] }),
    optimizer: adamw({ learningRate: 1e-2 }),
    limits: { categories: 5, label: 2 },
  },
};

const STEPS = 30;
/**
 * The number of first steps, in which last bits have not grown yet, so that a small change of a
 * rule shows.
 */
const EARLY = 5;
const EARLY_TOLERANCE = 1e-4;
const BATCH = 8;

for (const [name, curve] of Object.entries(CURVES)) {
  test(`${name}: the loss curve equals the golden one`, async () => {
    const losses = await lossesOf(curve);
    const file = new URL(`../../../test/golden/${name}.txt`, import.meta.url);
    if (process.env["LOCKSTEP_GOLDEN"] === "write") {
      writeFileSync(file, `${losses.map((loss) => loss.toPrecision(7)).join("\n")}\n`);
    }
    assert.ok(existsSync(file), "written once, with LOCKSTEP_GOLDEN=write");
    const golden = readFileSync(file, "utf8").trim().split("\n").map(Number);
    assert.equal(golden.length, STEPS);
    assert.ok((golden.at(-1) as number) < 0.97 * (golden[0] as number), "it learns");
    for (const [step, loss] of losses.entries()) {
      const expected = golden[step] as number;
      const error = Math.abs(loss - expected) / expected;
      const tolerance = step < EARLY ? EARLY_TOLERANCE : (curve.tolerance ?? 1e-3);
      assert.ok(error < tolerance, `step ${step}: ${loss}, golden ${expected}`);
    }
  });
}

async function lossesOf({ model, optimizer, microBatches = 1, limits }: Curve): Promise<number[]> {
  const trainer = await createTrainer({
    engine,
    model: model.build({ batch: BATCH / microBatches, mode: "train" }),
    optimizer,
    microBatches,
    clip: 1,
    seed: 3,
  });
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const positions = { start: step * BATCH, end: (step + 1) * BATCH };
    losses.push((await trainer.step({ positions, fill: filler(limits) })).loss);
  }
  trainer.close();
  return losses;
}

/** Returns one batch, which is learned by heart. */
function filler(limits: Curve["limits"]): FillBatch {
  return (fields) => {
    for (const [index, [name, tensor]] of Object.entries(fields).entries()) {
      if (name === "random_key") continue;
      const count = tensor.shape.reduce((a, b) => a * b, 1);
      const limit = limits[name];
      const numbers = randomNumbers(index + 1, count, limit === undefined ? [-1, 1] : [0, limit]);
      const values = limit === undefined ? numbers : numbers.map(Math.floor);
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
    }
  };
}
