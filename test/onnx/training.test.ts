/** Exports of PyTorch, trained as a whole: graph, gradient, optimizer and engine. */
import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import { createOrtEngine, type HostTensor } from "../../src/engine/index.ts";
import { crossEntropy, mse, onnx } from "../../src/import/index.ts";
import type { ModelDefinition } from "../../src/nn/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { type BatchFields, createTrainer, type Trainer } from "../../src/train/index.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const fixture = (name: string) =>
  path.join(import.meta.dirname, `../../../test/onnx/fixtures/${name}.onnx`);

function write(tensor: HostTensor | undefined, value: (index: number) => number): void {
  assert.ok(tensor !== undefined);
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  const values = Array.from({ length: count }, (_, i) => value(i));
  tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
}

async function train(
  definition: ModelDefinition,
  options: { batch: number; steps: number; rate: number },
  fill: (into: BatchFields, step: number) => void,
  look: (trainer: Trainer, losses: readonly number[]) => void | Promise<void>,
): Promise<void> {
  const { batch, steps, rate } = options;
  const trainer = await createTrainer({
    engine,
    model: definition.build({ batch, mode: "train" }),
    optimizer: adamw({ learningRate: rate, weightDecay: 0 }),
  });
  try {
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      const positions = { start: step * batch, end: (step + 1) * batch };
      const { loss } = await trainer.step({ positions, fill: (into) => fill(into, step) });
      losses.push(loss);
    }
    await look(trainer, losses);
  } finally {
    trainer.close();
  }
}

test("an exported MLP learns a new function", async () => {
  const model = onnx(fixture("mlp-17"), { loss: mse({ prediction: "output", target: "target" }) });
  await train(
    model,
    { batch: 32, steps: 150, rate: 0.01 },
    (into, step) => {
      const x = (i: number) => Math.sin(i * 12.9 + step * 78.2);
      write(into["x"], x);
      write(into["target"], (i) => x(Math.floor(i / 3) * 6 + (i % 3)) * 0.5 + 0.2);
    },
    (_, losses) => {
      const last = losses.at(-1) ?? Infinity;
      assert.ok(last < 0.1 * (losses[0] ?? 0), `from ${losses[0]} to ${last}`);
    },
  );
});

test("an exported transformer learns to repeat its input, by cross-entropy", async () => {
  const model = onnx(fixture("encoder-17"), {
    dims: { length: 6 },
    loss: crossEntropy({ logits: "output", labels: "labels" }),
  });
  await train(
    model,
    { batch: 16, steps: 80, rate: 0.01 },
    (into, step) => {
      const token = (i: number) => Math.floor(Math.abs(Math.sin(i * 3.7 + step * 5.1)) * 20) % 20;
      write(into["ids"], token);
      write(into["labels"], token);
    },
    (_, losses) => {
      const last = losses.at(-1) ?? Infinity;
      assert.ok((losses[0] ?? 0) > 2.5 && last < 0.5, `from ${losses[0]} to ${last}`);
    },
  );
});

test("only the head of an exported network is trained, and running statistics are learned", async () => {
  const model = onnx(fixture("cnn-train-15"), {
    trainable: /^head\./,
    loss: crossEntropy({ logits: "output", labels: "labels" }),
  });
  const built = model.build({ batch: 12, mode: "train" });
  assert.deepEqual(
    built.parameters.map(({ name }) => name),
    ["head.weight", "head.bias"],
  );
  assert.ok(built.graph.constants.has("conv1.weight"));
  await train(
    model,
    { batch: 12, steps: 40, rate: 0.05 },
    (into) => {
      write(into["image"], (i) => Math.sin(i * 0.7) * (1 + (Math.floor(i / 128) % 4)) + 2);
      write(into["labels"], (i) => i % 4);
    },
    async (trainer, losses) => {
      const last = losses.at(-1) ?? Infinity;
      assert.ok(last < 0.8 * (losses[0] ?? 0), `from ${losses[0]} to ${last}`);
      const { parameters, states } = await trainer.read();
      assert.deepEqual(Object.keys(parameters).sort(), ["head.bias", "head.weight"]);
      const mean = states["norm1.running_mean"];
      assert.ok(mean !== undefined && toNumbers(mean).some((value) => Math.abs(value) > 0.1));
    },
  );
});

test("weights that the exporter renamed are found by the module they come from", () => {
  const trainable = (pattern: RegExp) =>
    onnx(fixture("encoder-17"), {
      dims: { length: 6 },
      trainable: pattern,
      loss: crossEntropy({ logits: "output", labels: "labels" }),
    })
      .build({ batch: 2, mode: "train" })
      .parameters.map(({ name, type }) => [name, type.shape]);
  assert.deepEqual(trainable(/^head\./), [["head.weight", [16, 20]]]);
  assert.deepEqual(trainable(/qkv/), [
    ["blocks.0.qkv.bias", [48]],
    ["blocks.0.qkv.weight", [16, 48]],
  ]);
  assert.throws(() => trainable(/absent/), {
    code: "INVALID_OPTION",
    message:
      /no weight is trained, because none matches \/absent\/\.\n {2}Its weights are: tokens\.weight, /,
  });
});
