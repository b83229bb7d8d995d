import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { SampleSet } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import {
  cast,
  crossEntropy,
  div,
  matmul,
  mse,
  mul,
  reduceSum,
  sqrt,
  square,
  sub,
  transpose,
} from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { bert, defineModel, type ModelDefinition } from "../nn/index.ts";
import { sgd } from "../optimizer/index.ts";
import { elementCount, tensorFrom } from "../tensor/index.ts";
import { createTrainer } from "../train/create.ts";
import { type Validated, Validation } from "./validation.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

/** Returns samples: sample i has the i-th value of each field. */
function samplesOf(
  length: number,
  value: (field: string, sample: number, at: number) => number,
  seen: number[] = [],
): SampleSet {
  return {
    length,
    read: async (indices, into) => {
      seen.push(...indices);
      for (const [field, tensor] of Object.entries(into)) {
        const width = elementCount(tensor.shape) / indices.length;
        const numbers = indices.flatMap((sample) =>
          Array.from({ length: width }, (_, at) => value(field, sample, at)),
        );
        tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, numbers).bytes);
      }
    },
  };
}

async function validate(
  definition: ModelDefinition,
  samples: SampleSet,
  batch: number,
  limit = samples.length,
): Promise<Validated & { readonly meanOfBatches: string | undefined }> {
  const trainer = await createTrainer({
    engine,
    model: definition.build({ batch, mode: "train" }),
    evaluation: definition.build({ batch, mode: "eval" }),
    evaluationSamples: limit,
    optimizer: sgd({ learningRate: 1 }),
  });
  try {
    const found = await new Validation(samples, trainer).run();
    assert.ok(found !== undefined);
    return { ...found, meanOfBatches: trainer.plan.evaluation?.measures[0]?.meanOfBatches };
  } finally {
    trainer.close();
  }
}

const sum = (x: Value) => reduceSum(x, { keepdims: false });

/**
 * A model whose prediction is x. Beside the loss it gives a share of marked samples and the root of
 * a mean.
 */
const probe = defineModel("probe", (m) => {
  const x = mul(m.input("x", [m.batch]), m.parameter("one", [], { kind: "ones" }));
  const marked = m.input("marked", [m.batch]);
  const zero = sub(x, x);
  const error = mse(x, zero);
  const share = div(sum(mul(square(x), marked)), sum(marked));
  return { loss: error, rootOfMean: sqrt(error), share };
});

for (const batch of [1, 2, 4, 7, 11, 32]) {
  test(`eleven samples in batches of ${batch} count once each`, async () => {
    const seen: number[] = [];
    const value = (field: string, i: number) => (field === "x" ? i + 1 : Number(i % 5 === 1));
    const { loss, measures } = await validate(probe, samplesOf(11, value, seen), batch);
    assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const close = (found: number | undefined, wanted: number) =>
      assert.ok(Math.abs((found ?? NaN) - wanted) < 1e-5 * wanted, `${found}, not ${wanted}`);
    close(loss, 46);
    close(measures.rootOfMean, Math.sqrt(46));
    close(measures.share, (4 + 49) / 2);
  });
}

test("a validation on some of many samples takes the same ones every time, spread over all", async () => {
  for (const batch of [4, 6]) {
    const seen: number[] = [];
    await validate(
      probe,
      samplesOf(1001, () => 1, seen),
      batch,
      64,
    );
    assert.equal(new Set(seen).size, 64);
    assert.equal(seen.length, 64);
    assert.ok(Math.max(...seen) > 950);
  }
});

const tagger = defineModel("tagger", (m) => {
  const x = m.input("x", [m.batch, 3]);
  const label = m.input("label", [m.batch], "int32");
  const logits = matmul(x, m.parameter("weight", [3, 3], { kind: "ones" }));
  return { loss: crossEntropy(logits, label, { ignoreIndex: -100 }), logits };
});

test("ignored labels do not count, whatever batch they are in", async () => {
  const value = (field: string, i: number, at: number) =>
    field === "x" ? Math.sin(7 * i + at) : i % 4 === 1 ? i % 3 : -100;
  const whole = await validate(tagger, samplesOf(10, value), 10);
  for (const batch of [1, 3, 4]) {
    const { loss = NaN } = await validate(tagger, samplesOf(10, value), batch);
    assert.ok(Math.abs(loss - (whole.loss as number)) < 1e-6, `${loss}, not ${whole.loss}`);
  }
});

test("there is no loss if no label counts", async () => {
  const value = (field: string) => (field === "x" ? 1 : -100);
  const { loss } = await validate(tagger, samplesOf(10, value), 4);
  assert.equal(loss, undefined);
});

test("a masked language model masks the same tokens of a text in any batch", async () => {
  const model = bert({ layers: 1, width: 8, heads: 2, context: 12, vocabulary: 9 });
  const samples = samplesOf(10, (_, i, at) => (i * 5 + at * 3) % 8);
  const whole = await validate(model, samples, 10);
  for (const batch of [1, 4]) {
    const { loss = NaN } = await validate(model, samples, batch);
    assert.ok(Math.abs(loss - (whole.loss as number)) < 1e-5, `${loss}, not ${whole.loss}`);
  }
});

test("a loss that relates samples to each other is the mean over batches, and a note says so", async () => {
  const contrastive = defineModel("contrastive", (m) => {
    const x = mul(m.input("x", [m.batch, 2]), m.parameter("one", [], { kind: "ones" }));
    const own = Array.from({ length: m.batch }, (_, i) => i);
    const label = cast(m.builder.constant(tensorFrom("int32", [m.batch], own)), "int32");
    return { loss: crossEntropy(matmul(x, transpose(x, [1, 0])), label) };
  });
  const value = (_: string, i: number, at: number) => Math.cos(3 * i + at);
  const [whole, halves] = [
    await validate(contrastive, samplesOf(8, value), 8),
    await validate(contrastive, samplesOf(8, value), 4),
  ];
  assert.equal(whole.meanOfBatches, undefined);
  assert.match(halves.meanOfBatches ?? "", /MatMul.*relates the samples/);
});
