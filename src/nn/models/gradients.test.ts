import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkModelGradients,
  drawBatch,
  drawWeights,
  lossAndGradients,
} from "../../../test/support/model.ts";
import { add, cos, mul } from "../../functional/index.ts";
import { bert } from "./bert.ts";
import { convnet } from "./convnet.ts";
import { gpt } from "./gpt.ts";
import { mlp } from "./mlp.ts";
import { pinn } from "./pinn.ts";
import { dlrm, matrixFactorization } from "./recommendation.ts";
import { resnet } from "./resnet.ts";

const small = { layers: 2, width: 8, heads: 4, context: 5, vocabulary: 11 };
const limits = { ids: 11, targets: 11 };

test("gradients of a GPT agree with finite differences", () => {
  checkModelGradients(gpt(small), { limits });
});

test("gradients of a Llama-like GPT agree with finite differences", () => {
  const llama = gpt({
    ...small,
    kvHeads: 2,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
    bias: false,
    hidden: 12,
  });
  checkModelGradients(llama, { limits });
});

test("a GPT that computes attention in blocks of queries has the same loss and gradients", () => {
  const build = (queryBlock?: number) =>
    gpt({ ...small, kvHeads: 2, ...(queryBlock && { queryBlock }) }).build({
      batch: 2,
      mode: "train",
      dtype: "float64",
    });
  const whole = build();
  const inputs = { ...drawWeights(whole), ...drawBatch(whole, limits) };
  const expected = lossAndGradients(whole, inputs);
  const got = lossAndGradients(build(2), inputs);
  assert.ok(Math.abs(got.loss - expected.loss) < 1e-12);
  for (const [name, tensor] of Object.entries(expected.gradients)) {
    const a = new Float64Array(Uint8Array.from(tensor.bytes).buffer);
    const b = new Float64Array(Uint8Array.from(got.gradients[name]?.bytes ?? []).buffer);
    assert.ok(
      a.every((value, i) => Math.abs(value - (b[i] as number)) < 1e-12),
      name,
    );
  }
});

test("at the start, a GPT's loss is about ln(vocabulary)", () => {
  const model = gpt({ ...small, width: 16, vocabulary: 65 }).build({ batch: 4, mode: "train" });
  const batch = drawBatch(model, { ids: 65, targets: 65 });
  const { loss } = lossAndGradients(model, { ...drawWeights(model), ...batch });
  assert.ok(Math.abs(loss - Math.log(65)) < 0.1, `${loss}`);
});

test("gradients of a GPT with dropout agree with finite differences", () => {
  checkModelGradients(gpt({ ...small, dropout: 0.3 }), { limits });
});

test("gradients of a BERT agree with finite differences", () => {
  const options = { layers: 1, width: 8, heads: 2, context: 6, vocabulary: 9, maskRate: 0.6 };
  checkModelGradients(bert({ ...options, segments: 2, padding: 3 }), {
    batch: 3,
    limits: { ids: 8, segments: 2, random_key: 1e9 },
    tolerance: 1e-5,
  });
});

test("gradients of perceptrons agree with finite differences", () => {
  const classifier = mlp({ inputs: 6, hidden: [5], outputs: 3, activation: "gelu" });
  checkModelGradients(classifier, { limits: { label: 3 } });
  const numbers = mlp({ inputs: [2, 3], hidden: [4, 4], outputs: 2, task: "regression" });
  checkModelGradients(numbers);
});

test("gradients of recommenders agree with finite differences", () => {
  checkModelGradients(matrixFactorization({ users: 5, items: 4, width: 3, mean: 3 }), {
    batch: 6,
    limits: { user: 5, item: 4 },
    probes: 8,
  });
  checkModelGradients(dlrm({ dense: 3, categories: [4, 3], width: 4, bottom: [5], top: [6] }), {
    batch: 4,
    limits: { categories: 3 },
  });
});

test("gradients through second derivatives agree with finite differences", () => {
  const oscillator = pinn({
    residual: ({ u, du, ddu }) => add(add(ddu, mul(du, 0.2)), mul(u, 4)),
    start: { value: 1, slope: 0.5 },
    solution: cos,
    end: 3,
    hidden: [4, 4],
  });
  checkModelGradients(oscillator, { batch: 5, tolerance: 1e-5 });
});

test("gradients of a convolutional network agree with finite differences", () => {
  const network = convnet({ image: [2, 8, 8], classes: 3, channels: [3, 4], hidden: 5 });
  checkModelGradients(network, { limits: { label: 3 } });
});

test("gradients of a residual network agree with finite differences", () => {
  const network = resnet({
    image: [2, 6, 6],
    classes: 3,
    blocks: [1, 1],
    channels: [3, 4],
    stem: "small",
  });
  checkModelGradients(network, { batch: 3, limits: { label: 3 }, tolerance: 1e-5 });
});

test("dropout depends on the key of a sample, not on the batch that it is in", () => {
  const definition = gpt({ ...small, kvHeads: 2, dropout: 0.4 });
  const whole = definition.build({ batch: 4, mode: "train", dtype: "float64" });
  const weights = drawWeights(whole);
  const batch = drawBatch(whole, { ...limits, random_key: 1e9 });
  const expected = lossAndGradients(whole, { ...weights, ...batch }).loss;
  const half = definition.build({ batch: 2, mode: "train", dtype: "float64" });
  const halves = [0, 1].map((index) => {
    const rows = Object.entries(batch).map(([name, { dtype, shape, bytes }]) => {
      const size = bytes.byteLength / 2;
      const part = bytes.slice(index * size, (index + 1) * size);
      return [name, { dtype, shape: [2, ...shape.slice(1)], bytes: part }];
    });
    return lossAndGradients(half, { ...weights, ...Object.fromEntries(rows) }).loss;
  });
  const mean = ((halves[0] as number) + (halves[1] as number)) / 2;
  assert.ok(Math.abs(mean - expected) < 1e-12, `${mean}, ${expected}`);
  const dry = gpt({ ...small, kvHeads: 2 }).build({ batch: 4, mode: "train", dtype: "float64" });
  const { loss } = lossAndGradients(dry, { ...weights, ...batch });
  assert.ok(Math.abs(loss - expected) > 1e-6);
});
