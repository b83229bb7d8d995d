/**
 * Losses whose number of labels differs from sample to sample, in 1 to 8 micro-batches: loss and
 * gradients by name equal PyTorch's for the whole batch at once (`ragged.py`).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import * as f from "../../src/functional/index.ts";
import type { Value } from "../../src/graph/index.ts";
import { defineModel, embedding, linear, type ModelDefinition } from "../../src/nn/index.ts";
import { sgd } from "../../src/optimizer/index.ts";
import {
  type DType,
  elementCount,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../src/tensor/index.ts";
import { createTrainer, type FillBatch } from "../../src/train/index.ts";

interface Expected {
  readonly loss: number;
  readonly gradients: Readonly<Record<string, readonly number[]>>;
}

const path = new URL("../../../test/torch/fixtures/ragged.json", import.meta.url);
const { losses: expected } = JSON.parse(readFileSync(path, "utf8")) as {
  losses: Record<string, Expected>;
};

const [SAMPLES, LENGTH, VOCABULARY, WIDTH, HIDDEN, CLASSES] = [8, 6, 7, 4, 5, 5];
const IGNORED = -100;
const LENGTHS = [2, 0, 6, 1, 3, 0, 5, 4];
const COUNT = SAMPLES * LENGTH;

const numbers = (count: number, at: (index: number) => number) =>
  Array.from({ length: count }, (_, i) => at(i));
const isPresent = (i: number) => i % LENGTH < (LENGTHS[Math.floor(i / LENGTH)] as number);

/** The fields of the whole batch, sample after sample. */
const DATA: Readonly<Record<string, readonly number[]>> = {
  ids: numbers(COUNT, (i) => (3 * i + Math.floor(i / 5)) % VOCABULARY),
  labels: numbers(COUNT, (i) => (isPresent(i) ? (2 * i + Math.floor(i / 7)) % CLASSES : IGNORED)),
  mask: numbers(COUNT, (i) => Number(isPresent(i))),
  targets: numbers(COUNT * CLASSES, (i) => Math.cos(0.9 * i)),
  lengths: LENGTHS,
};

interface Parts {
  /** (samples, length, classes) */
  readonly x: Value;
  /** (samples, length, classes) */
  readonly targets: Value;
  /** (samples, length) */
  readonly labels: Value;
  readonly mask: Value;
  /** (samples) */
  readonly lengths: Value;
  /** (hidden, classes) */
  readonly weight: Value;
}

const all = { keepdims: false };
const last = { axes: [-1], keepdims: false };
const ignore = { ignoreIndex: IGNORED };
const crossEntropy = ({ x, labels }: Parts) => f.crossEntropy(x, labels, ignore);

function maskedMse({ x, targets, mask }: Parts): Value {
  const each = f.reduceMean(f.square(f.sub(x, targets)), last);
  return f.div(f.reduceSum(f.mul(each, mask), all), f.reduceSum(mask, all));
}

const LOSSES: Readonly<Record<string, (parts: Parts) => Value>> = {
  "cross-entropy": crossEntropy,
  "cross-entropy, smoothed": ({ x, labels }) =>
    f.crossEntropy(x, labels, { ...ignore, labelSmoothing: 0.2 }),
  "cross-entropy, class weights": ({ x, labels }) => {
    const rows = f.reshape(x, [elementCount(labels.shape), CLASSES]);
    const flat = f.reshape(labels, [elementCount(labels.shape)]);
    const weights = x.builder.constant(tensorFrom(x.dtype, [CLASSES], [0.5, 2, 1, 0.25, 1.5]));
    const attributes = { ignore_index: IGNORED };
    return x.builder.one("SoftmaxCrossEntropyLoss", [rows, flat, weights], attributes);
  },
  "cross-entropy, sum": ({ x, labels }) =>
    f.crossEntropy(x, labels, { ...ignore, reduction: "sum" }),
  "masked mse": maskedMse,
  "a mean over lengths": ({ x, targets, mask, lengths }) => {
    const size = f.abs(f.sub(x, targets));
    const inner = f.minimum(size, 1);
    const places = f.reduceMean(f.mul(inner, f.sub(size, f.mul(inner, 0.5))), last);
    const each = f.reduceSum(f.mul(places, mask), last);
    const has = f.cast(f.greater(lengths, 0), x.dtype);
    const samples = f.div(each, f.maximum(lengths, 1));
    return f.div(f.reduceSum(samples, all), f.reduceSum(has, all));
  },
  "binary cross-entropy": ({ x, targets, mask }) => {
    const each = f.sub(f.softplus(x), f.mul(x, f.abs(targets)));
    const counted = f.mul(f.reduceSum(mask, all), CLASSES);
    return f.div(f.reduceSum(f.mul(each, f.unsqueeze(mask, [-1])), all), counted);
  },
  "two tasks": (parts) => f.add(crossEntropy(parts), f.mul(maskedMse(parts), 0.5)),
  "labels and a penalty": (parts) =>
    f.add(crossEntropy(parts), f.mul(f.reduceSum(f.square(parts.weight), all), 0.1)),
  perplexity: (parts) => f.exp(crossEntropy(parts)),
};

function model(loss: (parts: Parts) => Value): ModelDefinition {
  return defineModel("ragged", (m) => {
    const ids = m.input("ids", [m.batch, LENGTH], "int32");
    const labels = m.input("labels", [m.batch, LENGTH], "int32");
    const mask = m.input("mask", [m.batch, LENGTH]);
    const targets = m.input("targets", [m.batch, LENGTH, CLASSES]);
    const lengths = m.input("lengths", [m.batch]);
    const rows = embedding(m.child("table"), ids, { vocabulary: VOCABULARY, width: WIDTH });
    const inner = f.tanh(linear(m.child("inner"), rows, { outputs: HIDDEN }));
    const x = linear(m.child("outer"), inner, { outputs: CLASSES });
    const weight = m.builder.value("outer.weight");
    return { loss: loss({ x, targets, labels, mask, lengths, weight }) };
  });
}

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const fill: FillBatch = (into) => {
  for (const [name, { bytes, dtype, shape }] of Object.entries(into)) {
    bytes.set(tensorFrom(dtype, shape, [...(DATA[name] ?? [])]).bytes);
  }
};

/** Returns loss and gradients of one step: what SGD at a rate of 1 subtracts. */
async function stepped(definition: ModelDefinition, microBatches: number, dtype: DType) {
  const trainer = await createTrainer({
    engine,
    model: definition.build({ batch: SAMPLES / microBatches, mode: "train", dtype }),
    optimizer: sgd({ learningRate: 1 }),
    microBatches,
  });
  try {
    const started = Object.entries(trainer.tensors().parameters).map(
      ([name, { dtype: own, shape }], number): [string, Tensor] => {
        const values = numbers(elementCount(shape), (i) => 0.5 * Math.sin(0.7 * i + number));
        return [name, tensorFrom(own, shape, values)];
      },
    );
    for (const [name, { bytes }] of started) trainer.parts().write(`parameters/${name}`, 0, bytes);
    const { loss } = await trainer.step({ positions: { start: 0, end: SAMPLES }, fill });
    const { parameters: now } = await trainer.read();
    const gradients = started.map(([name, before]): [string, number[]] => {
      const values = toNumbers(now[name] as Tensor);
      return [name, toNumbers(before).map((value, i) => value - (values[i] as number))];
    });
    return { loss, gradients: Object.fromEntries(gradients) };
  } finally {
    trainer.close();
  }
}

test("each loss of the test is one that PyTorch computed", () => {
  assert.deepEqual(Object.keys(LOSSES).sort(), Object.keys(expected).sort());
});

for (const [name, loss] of Object.entries(LOSSES)) {
  // Softplus has no float64 kernel in this engine.
  const dtype = name.startsWith("binary") ? "float32" : "float64";
  const tolerance = dtype === "float64" ? 1e-10 : 1e-6;
  test(`${name}: PyTorch's loss and gradients in 1, 2, 4 and 8 micro-batches`, async () => {
    const wanted = expected[name] as Expected;
    for (const microBatches of [1, 2, 4, 8]) {
      const found = await stepped(model(loss), microBatches, dtype);
      const near = (a: number, b: number, what: string) =>
        assert.ok(
          Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b)),
          `${microBatches} micro-batches, ${what}: ${a}, not ${b}`,
        );
      near(found.loss, wanted.loss, "loss");
      assert.deepEqual(Object.keys(found.gradients), Object.keys(wanted.gradients));
      for (const [parameter, values] of Object.entries(wanted.gradients)) {
        const own = found.gradients[parameter] ?? [];
        assert.equal(own.length, values.length);
        for (const [i, value] of values.entries())
          near(own[i] as number, value, `${parameter}[${i}]`);
      }
    }
  });
}
