/**
 * Recomputed activations: the same weights, bit for bit, in less memory, for all kinds of models.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { crossEntropy, reshape } from "../src/functional/index.ts";
import {
  bert,
  convnet,
  defineModel,
  embedding,
  gpt,
  linear,
  lstm,
  type ModelDefinition,
  mlp,
  resnet,
} from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import { createTrainer, type FillBatch, type TrainerOptions } from "../src/train/index.ts";
import { randomNumbers } from "./support/random.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const CLASSES = 10;
const SAMPLES = 4;

const small = { layers: 3, width: 32, heads: 4, context: 16, vocabulary: CLASSES };
const textLstm = defineModel("lstm", (m) => {
  const ids = m.input("ids", [m.batch, 6], "int32");
  const targets = m.input("targets", [m.batch, 6], "int32");
  const x = embedding(m.child("embedding"), ids, { vocabulary: CLASSES, width: 16 });
  const { y: first } = lstm(m.child("layers").child(0), x, { hidden: 16 });
  const { y } = lstm(m.child("layers").child(1), first, { hidden: 16 });
  const logits = linear(m.child("head"), y, { outputs: CLASSES });
  const rows = m.batch * 6;
  const loss = crossEntropy(reshape(logits, [rows, CLASSES]), reshape(targets, [rows]));
  return { loss };
});

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  gpt: gpt(small),
  "gpt with tanh GELU": gpt({ ...small, activation: "gelu_tanh" }),
  "gpt with quick GELU, dropout": gpt({ ...small, activation: "quick_gelu", dropout: 0.1 }),
  "gpt with RMS norm, SwiGLU, rotary positions, shared heads": gpt({
    ...small,
    activation: "swiglu",
    norm: "rms",
    positions: "rotary",
    kvHeads: 2,
    tied: false,
    bias: false,
  }),
  "bert, whose loss has a count of its own": bert({
    layers: 3,
    width: 32,
    heads: 2,
    context: 16,
    vocabulary: CLASSES + 1,
    dropout: 0.1,
  }),
  "mlp with dropout": mlp({ inputs: 8, hidden: [32, 32, 32], outputs: CLASSES, dropout: 0.2 }),
  convnet: convnet({ image: [3, 16, 16], classes: CLASSES, channels: [8, 16], dropout: 0.1 }),
  "resnet with running statistics": resnet({
    image: [3, 16, 16],
    classes: CLASSES,
    blocks: [2, 2],
    channels: [16, 32],
    stem: "small",
  }),
  lstm: textLstm,
};

const fill: FillBatch = (into) => {
  for (const [field, tensor] of Object.values(into).entries()) {
    const isClass = tensor.dtype === "int32";
    const count = elementCount(tensor.shape);
    const numbers = randomNumbers(field, count, [0, isClass ? CLASSES : 1]);
    const values = isClass ? numbers.map(Math.floor) : numbers;
    tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
  }
};

interface Outcome {
  readonly losses: readonly number[];
  /** Parameters, slots and states. */
  readonly tensors: readonly (readonly [string, string])[];
  readonly arena: number;
  readonly pieces: number;
}

async function train(
  definition: ModelDefinition,
  options: Pick<TrainerOptions, "recompute" | "microBatches">,
): Promise<Outcome> {
  const { microBatches = 1 } = options;
  const model = definition.build({ batch: SAMPLES / microBatches, mode: "train" });
  const optimizer = adamw({ learningRate: 1e-2 });
  const trainer = await createTrainer({ engine, model, optimizer, clip: 1, ...options });
  const losses: number[] = [];
  for (let step = 0; step < 3; step++) {
    const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
    losses.push((await trainer.step({ positions, fill })).loss);
  }
  const { parameters, slots, states } = await trainer.read();
  const tensors = Object.entries({ ...parameters, ...slots, ...states }).map(
    ([name, { bytes }]) => [name, Buffer.from(bytes).toString("base64")] as const,
  );
  const { arena, graphs } = trainer.plan;
  const pieces = [...graphs.keys()].filter((name) => name.startsWith("gradient")).length;
  trainer.close();
  return { losses, tensors, arena: arena?.byteLength ?? 0, pieces };
}

for (const [name, definition] of Object.entries(MODELS)) {
  for (const microBatches of [1, 2]) {
    test(`${name}, ${microBatches} at a time: recomputation gives the same bits`, async () => {
      const whole = await train(definition, { microBatches });
      const again = await train(definition, { microBatches, recompute: "blocks" });
      assert.equal(whole.pieces, 1);
      assert.ok(again.pieces > 2, `${again.pieces} pieces`);
      assert.deepEqual(again.losses, whole.losses);
      assert.deepEqual(again.tensors, whole.tensors);
    });
  }
}
