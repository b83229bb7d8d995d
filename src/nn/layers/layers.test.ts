import assert from "node:assert/strict";
import { test } from "node:test";
import { drawBatch, drawWeights, type Tensors } from "../../../test/support/model.ts";
import { randomNumbers } from "../../../test/support/random.ts";
import { add, reduceSum } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { interpret } from "../../reference/index.ts";
import { type Shape, type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { defineModel } from "../define.ts";
import type { Mode, Model } from "../model.ts";
import { gpt } from "../models/gpt.ts";
import type { Scope } from "../scope.ts";
import { attention } from "./attention.ts";
import { averagePool, conv1d, conv2d, globalAveragePool, maxPool } from "./convolution.ts";
import { dropout } from "./dropout.ts";
import { linear } from "./linear.ts";
import { batchNorm, groupNorm, layerNorm } from "./normalization.ts";
import { additiveMask } from "./positions.ts";
import { gru, lstm, rnn } from "./recurrent.ts";
import { residual } from "./transformer.ts";

/** Builds a layer alone, with input `x` of this shape and output `y`. */
function build(shape: Shape, layer: (m: Scope, x: Value) => Value, mode: Mode = "train"): Model {
  return defineModel("one_layer", (m) => {
    const y = layer(m.child("layer"), m.input("x", shape));
    return { loss: reduceSum(y, { keepdims: false }), y };
  }).build({ batch: shape[0] as number, mode, dtype: "float64" });
}

function run(model: Model, inputs: Tensors, output = "y"): number[] {
  return toNumbers(interpret(model.graph, inputs)[output] as Tensor);
}

const names = (model: Model) => model.parameters.map(({ name, type }) => [name, type.shape]);

function near(got: readonly number[], expected: readonly number[], tolerance = 1e-9): void {
  assert.equal(got.length, expected.length);
  for (const [i, value] of got.entries()) {
    const wanted = expected[i] as number;
    assert.ok(Math.abs(value - wanted) <= tolerance, `[${i}]: ${value}, expected ${wanted}`);
  }
}

test("linear: weight is [inputs, outputs]", () => {
  const model = build([1, 2], (m, x) => linear(m, x, { outputs: 3 }));
  assert.deepEqual(names(model), [
    ["layer.weight", [2, 3]],
    ["layer.bias", [3]],
  ]);
  const y = run(model, {
    x: tensorFrom("float64", [1, 2], [10, 1]),
    "layer.weight": tensorFrom("float64", [2, 3], [1, 2, 3, 4, 5, 6]),
    "layer.bias": tensorFrom("float64", [3], [0.5, 0, 0]),
  });
  assert.deepEqual(y, [14.5, 25, 36]);
});

test("batch normalization uses statistics of the batch in training, and running ones in evaluation", () => {
  const x = tensorFrom("float64", [2, 1, 2], [1, 2, 3, 6]);
  const training = build([2, 1, 2], (m, v) => batchNorm(m, v, { epsilon: 0 }));
  const weights = drawWeights(training);
  // The mean is 3, the variance 3.5, the unbiased variance 14/3.
  near(
    run(training, { ...weights, x }),
    [-2, -1, 0, 3].map((d) => d / Math.sqrt(3.5)),
  );
  near(run(training, { ...weights, x }, "layer.running_mean.next"), [0.3]);
  near(run(training, { ...weights, x }, "layer.running_var.next"), [0.9 + 1.4 / 3]);
  const evaluation = build([2, 1, 2], (m, v) => batchNorm(m, v, { epsilon: 0 }), "eval");
  assert.deepEqual(
    new Set(evaluation.parameters.map(({ name }) => name)),
    new Set(training.parameters.map(({ name }) => name)),
  );
  const running = {
    "layer.running_mean": tensorFrom("float64", [1], [2]),
    "layer.running_var": tensorFrom("float64", [1], [4]),
  };
  near(run(evaluation, { ...weights, ...running, x }), [-0.5, 0, 0.5, 2]);
});

test("group normalization gives mean 0 and variance 1 in each group of each sample", () => {
  const shape = [2, 4, 3];
  const x = tensorFrom("float64", shape, randomNumbers(3, 24));
  const model = build(shape, (m, v) => groupNorm(m, v, { groups: 2, epsilon: 0 }));
  const y = run(model, { ...drawWeights(model), x });
  for (let group = 0; group < 4; group++) {
    const part = y.slice(group * 6, group * 6 + 6);
    near([part.reduce((a, b) => a + b) / 6, part.reduce((a, b) => a + b * b, 0) / 6], [0, 1]);
  }
});

test("convolution and pooling: shapes and names", () => {
  const shapeOf = (shape: Shape, layer: (m: Scope, x: Value) => Value): Shape =>
    build(shape, layer).graph.types.get("y")?.shape ?? [];
  const images = [2, 4, 9, 7];
  const same = (kernel: number, dilation: number) => (m: Scope, x: Value) =>
    conv2d(m, x, { outputs: 6, kernel, dilation, padding: "same" });
  assert.deepEqual(shapeOf(images, same(3, 1)), [2, 6, 9, 7]);
  assert.deepEqual(shapeOf(images, same(4, 2)), [2, 6, 9, 7]);
  assert.deepEqual(
    shapeOf(images, (m, x) => conv2d(m, x, { outputs: 6, kernel: 3, stride: 2, groups: 2 })),
    [2, 6, 4, 3],
  );
  assert.deepEqual(
    shapeOf([2, 4, 9], (m, x) => conv1d(m, x, { outputs: 5, kernel: 3 })),
    [2, 5, 7],
  );
  assert.deepEqual(
    shapeOf(images, (m, x) => maxPool(m, x, { kernel: 2 })),
    [2, 4, 4, 3],
  );
  assert.deepEqual(
    shapeOf(images, (m, x) => averagePool(m, x, { kernel: 3, stride: 2, padding: 1 })),
    [2, 4, 5, 4],
  );
  assert.deepEqual(shapeOf(images, globalAveragePool), [2, 4]);
  assert.deepEqual(
    names(build(images, (m, x) => conv2d(m, x, { outputs: 6, kernel: 3, groups: 2, bias: false }))),
    [["layer.weight", [6, 2, 3, 3]]],
  );
});

test("a GPT does not look ahead, and attention without the causal mask does", () => {
  const model = gpt({ layers: 2, width: 8, heads: 2, context: 6, vocabulary: 9 }).build({
    batch: 1,
    mode: "eval",
    dtype: "float64",
  });
  const weights = drawWeights(model);
  const batch = drawBatch(model, { ids: 9, targets: 9 });
  const logitsWith = (ids: number[]) =>
    run(model, { ...weights, ...batch, ids: tensorFrom("int32", [1, 6], ids) }, "logits");
  const before = logitsWith([1, 2, 3, 4, 5, 6]);
  const after = logitsWith([1, 2, 3, 8, 7, 0]);
  assert.deepEqual(after.slice(0, 3 * 9), before.slice(0, 3 * 9));
  assert.notDeepEqual(after.slice(3 * 9, 4 * 9), before.slice(3 * 9, 4 * 9));
});

test("attention does not look at masked positions", () => {
  const shape = [2, 4, 6];
  const model = defineModel("masked", (m) => {
    const x = m.input("x", shape);
    const allowed = m.input("allowed", [2, 1, 1, 4], "bool");
    const mask = additiveMask(allowed, m.dtype);
    const y = attention(m.child("attention"), x, { heads: 3, mask });
    return { loss: reduceSum(y, { keepdims: false }), y };
  }).build({ batch: 2, mode: "train", dtype: "float64" });
  const weights = drawWeights(model);
  const allowed = tensorFrom("bool", [2, 1, 1, 4], [1, 1, 0, 1, 1, 1, 1, 1]);
  const x = randomNumbers(5, 48);
  const y = (values: number[]) =>
    run(model, { ...weights, allowed, x: tensorFrom("float64", shape, values) });
  // Token 2 of sample 0 is hidden from the others, so only its own row changes.
  const changed = y(x.map((value, i) => (i >= 12 && i < 18 ? value + 1 : value)));
  const original = y(x);
  near(changed.slice(0, 12), original.slice(0, 12));
  near(changed.slice(18), original.slice(18));
  assert.ok(Math.abs((changed[12] as number) - (original[12] as number)) > 1e-6);
});

test("a layer used again has the same parameters", () => {
  const model = build([1, 3], (m, x) => {
    const first = linear(m, x, { outputs: 3 });
    return residual(first, (value) => linear(m.again(), value, { outputs: 3 }));
  });
  assert.deepEqual(names(model), [
    ["layer.weight", [3, 3]],
    ["layer.bias", [3]],
  ]);
  assert.throws(() => build([1, 3], (m, x) => linear(m.again(), x, { outputs: 3 })), {
    message: /^layer: "layer\.weight" is used again before it was declared/,
  });
  assert.throws(
    () =>
      build([1, 3], (m, x) =>
        add(linear(m, x, { outputs: 3 }), linear(m.again(), x, { outputs: 2 })),
      ),
    { message: /"layer\.weight" is float64\[3, 3\], and is used again as float64\[3, 2\]/ },
  );
});

test("mistakes in layers name the layer", () => {
  const fails = (shape: Shape, layer: (m: Scope, x: Value) => Value, message: RegExp) =>
    assert.throws(() => build(shape, layer), { name: "LockstepError", message });
  fails(
    [2, 3, 10],
    (m, x) => attention(m, x, { heads: 4 }),
    /^layer: a width of 10 does not divide into 4 heads/,
  );
  fails(
    [2, 10],
    (m, x) => attention(m, x, { heads: 2 }),
    /^layer: expected an input \(batch, length, width\), got \[2, 10\]/,
  );
  fails(
    [2, 3],
    (m, x) => conv2d(m, x, { outputs: 1, kernel: 1 }),
    /^layer: expected an input \(batch, channels, height, width\)/,
  );
  fails(
    [2, 3, 4],
    (m, x) => conv1d(m, x, { outputs: 4, kernel: 1, groups: 2 }),
    /^layer: 3 input and 4 output channels/,
  );
  fails(
    [2, 3, 4],
    (m, x) => groupNorm(m, x, { groups: 2 }),
    /^layer: 3 channels do not divide into 2 groups/,
  );
  fails([2, 3], (m, x) => dropout(m, x, 1), /^layer: a dropout rate of 1/);
  fails(
    [2, 3],
    (m, x) => add(layerNorm(m, x), m.parameter("extra", [4], { kind: "zeros" })),
    /Add/,
  );
});

test("recurrent layers give the states of all steps and the last one, and name weights by layer and direction", () => {
  const model = build([2, 5, 3], (m, x) => {
    return lstm(m, x, { hidden: 4, layers: 2, bidirectional: true, dropout: 0.5 }).y;
  });
  assert.deepEqual(names(model), [
    ["layer.0.input", [2, 16, 3]],
    ["layer.0.recurrent", [2, 16, 4]],
    ["layer.0.bias", [2, 32]],
    ["layer.1.input", [2, 16, 8]],
    ["layer.1.recurrent", [2, 16, 4]],
    ["layer.1.bias", [2, 32]],
  ]);
  assert.deepEqual(model.graph.types.get("y")?.shape, [2, 5, 8]);
});

test("the last state of a recurrent layer is that of the last step, and a sequence's length ends it", () => {
  const x = tensorFrom("float64", [1, 3, 2], [1, 2, -1, 0.5, 3, -2]);
  for (const layer of [lstm, gru, rnn]) {
    const whole = (m: Scope, v: Value) => layer(m, v, { hidden: 2 });
    const states = build([1, 3, 2], (m, v) => whole(m, v).y);
    const weights = drawWeights(states);
    const y = run(states, { x, ...weights });
    const last = build([1, 3, 2], (m, v) => whole(m, v).h);
    near(run(last, { x, ...weights }), y.slice(4));
    const cut = build([1, 3, 2], (m, v) => {
      const lengths = m.builder.constant(tensorFrom("int32", [1], [2]));
      return layer(m, v, { hidden: 2, lengths }).y;
    });
    near(run(cut, { x, ...weights }), [...y.slice(0, 4), 0, 0]);
    const begun = build([1, 3, 2], (m, v) => {
      const full = layer(m.child("more"), v, { hidden: 2 });
      const initial = "c" in full ? { h: full.h, c: full.c } : full.h;
      return layer(m, v, { hidden: 2, initial } as never).y;
    });
    assert.equal(begun.parameters.length, 6);
  }
});

test("recurrent layers refuse impossible options", () => {
  assert.throws(
    () => build([2, 5], (m, x) => lstm(m, x, { hidden: 4 }).y),
    /\(batch, steps, width\)/,
  );
  assert.throws(() => build([2, 5, 3], (m, x) => gru(m, x, { hidden: 0 }).y), /hidden of 0/);
  assert.throws(
    () => build([2, 5, 3], (m, x) => rnn(m, x, { hidden: 3, initial: x }).y),
    /initial states of the shape/,
  );
});

test("layers with impossible options are refused when they are built", () => {
  const cases: readonly [Shape, (m: Scope, x: Value) => Value, RegExp][] = [
    [[1, 4], (m, x) => batchNorm(m, x), /one value for each channel of a micro-batch/],
    [[1, 4, 1, 1], (m, x) => batchNorm(m, x), /one value for each channel/],
    [[2, 4, 1], (m, x) => groupNorm(m, x, { groups: 4 }), /one value for each group/],
    [[2, 4, 3], (m, x) => groupNorm(m, x, { groups: 0 }), /groups is 0/],
    [[2, 1, 4, 4], (m, x) => conv2d(m, x, { outputs: 2, kernel: 5 }), /kernel is larger/],
    [[2, 1, 4, 4], (m, x) => conv2d(m, x, { outputs: 2, kernel: 3, stride: 0 }), /stride is 0/],
    [[2, 1, 2, 2], (m, x) => maxPool(m, x, { kernel: 3 }), /window is larger/],
    [[2, 1, 8], (m, x) => averagePool(m, x, { kernel: 2, padding: 2 }), /padding of 2/],
    [[2, 3], (m, x) => linear(m, x, { outputs: 0 }), /shape \[3, 0\]/],
    [[2, 3], (m, x) => dropout(m, x, 1), /dropout rate of 1/],
  ];
  for (const [shape, layer, expected] of cases) {
    assert.throws(() => build(shape, layer), expected);
  }
});
