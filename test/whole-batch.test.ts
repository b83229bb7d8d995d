/**
 * A step's loss and gradient are those of its whole batch, whatever it is cut into and whichever
 * rank computes the parts. They are compared with the graph of the whole batch, differentiated and
 * executed by itself.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { differentiate } from "../src/autodiff/index.ts";
import { createOrtEngine, evaluate } from "../src/engine/index.ts";
import * as f from "../src/functional/index.ts";
import { typeOf, type Value } from "../src/graph/index.ts";
import {
  bert,
  convnet,
  defineModel,
  dlrm,
  gpt,
  linear,
  type ModelDefinition,
  matrixFactorization,
  type Scope,
} from "../src/nn/index.ts";
import { adamw, sgd } from "../src/optimizer/index.ts";
import {
  type DType,
  elementCount,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../src/tensor/index.ts";
import { createTrainer, type FillBatch, type Trainer } from "../src/train/index.ts";
import { randomNumbers } from "./support/random.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const SAMPLES = 16;
const CLASSES = 3;
const IGNORED = -100;
/** Three of sixteen samples have a label, and two of these are in one half of the batch. */
const LABELLED = [1, 6, 11];

const all = { keepdims: false };
const mean = (x: Value) => f.reduceMean(x, all);
const sum = (x: Value) => f.reduceSum(x, all);

interface Parts {
  readonly m: Scope;
  /** (batch, classes) */
  readonly logits: Value;
  /** (batch), mostly IGNORED */
  readonly label: Value;
  /** (batch), never IGNORED */
  readonly dense: Value;
  /** (batch, classes), in [0, 1] */
  readonly y: Value;
  /** (batch), mostly 0 */
  readonly mask: Value;
  readonly weight: Value;
}

function model(loss: (parts: Parts) => Value): ModelDefinition {
  return defineModel("probe", (m) => {
    const x = m.input("x", [m.batch, 4]);
    const label = m.input("label", [m.batch], "int32");
    const dense = m.input("dense", [m.batch], "int32");
    const y = m.input("y", [m.batch, CLASSES]);
    const mask = m.input("mask", [m.batch]);
    const logits = linear(m.child("head"), x, { outputs: CLASSES });
    const weight = m.builder.value("head.weight");
    return { loss: loss({ m, logits, label, dense, y, mask, weight }) };
  });
}

/** Returns one loss for each sample. */
const each = ({ logits, y }: Parts) =>
  f.reduceSum(f.square(f.sub(logits, y)), { axes: [1], keepdims: false });

const onnxLoss =
  (op: string, attributes: Record<string, number | string>, weights = false) =>
  ({ m, logits, label, dense }: Parts) => {
    const scores = op.startsWith("Neg") ? f.logSoftmax(logits, 1) : logits;
    const own = weights ? [m.builder.constant(tensorFrom(m.dtype, [CLASSES], [0.5, 2, 1.25]))] : [];
    const labels = "ignore_index" in attributes ? label : dense;
    return m.builder.one(op, [scores, labels, ...own], attributes);
  };

const ignore = { ignoreIndex: IGNORED };

const LOSSES: Readonly<Record<string, (parts: Parts) => Value>> = {
  mse: ({ logits, y }) => f.mse(logits, y),
  "mse, sum": ({ logits, y }) => f.mse(logits, y, { reduction: "sum" }),
  l1: ({ logits, y }) => f.l1(logits, y),
  huber: ({ logits, y }) => f.huber(logits, y, { delta: 0.3 }),
  "cross-entropy": ({ logits, dense }) => f.crossEntropy(logits, dense),
  "cross-entropy, sum": ({ logits, dense }) => f.crossEntropy(logits, dense, { reduction: "sum" }),
  "cross-entropy of some labels": ({ logits, label }) => f.crossEntropy(logits, label, ignore),
  "cross-entropy of some labels, sum": ({ logits, label }) =>
    f.crossEntropy(logits, label, { ...ignore, reduction: "sum" }),
  "smoothed cross-entropy of some labels": ({ logits, label }) =>
    f.crossEntropy(logits, label, { ...ignore, labelSmoothing: 0.2 }),
  "binary cross-entropy": ({ logits, y }) =>
    f.binaryCrossEntropyWithLogits(logits, y, { positiveWeight: 3 }),
  "divergence, mean over the batch": ({ logits, y }) => f.klDivergence(f.logSoftmax(logits), y),
  "divergence, mean": ({ logits, y }) =>
    f.klDivergence(f.logSoftmax(logits), y, { reduction: "mean" }),
  "divergence, sum": ({ logits, y }) =>
    f.klDivergence(f.logSoftmax(logits), y, { reduction: "sum" }),
  "a mask by hand": (parts) =>
    f.div(sum(f.mul(each(parts), parts.mask)), f.add(sum(parts.mask), 1e-6)),
  "a quotient of means": (parts) => f.div(mean(f.mul(each(parts), parts.mask)), mean(parts.mask)),
  "weights that add up to one": (parts) =>
    sum(f.mul(each(parts), f.div(parts.mask, sum(parts.mask)))),
  "where, over a count": (parts) => {
    const counted = f.greater(parts.mask, 0.5);
    const kept = f.where(counted, each(parts), 0);
    return f.div(sum(kept), sum(f.cast(counted, parts.m.dtype)));
  },
  "divided by the batch": (parts) => f.div(sum(each(parts)), parts.m.batch),
  "times one over the batch": (parts) => f.mul(sum(each(parts)), 1 / parts.m.batch),
  "half the sum over the batch": (parts) => f.div(f.mul(sum(each(parts)), 0.5), parts.m.batch),
  "a mean and a penalty": (parts) =>
    f.add(mean(each(parts)), f.mul(sum(f.square(parts.weight)), 0.1)),
  "a sum and a penalty": (parts) =>
    f.add(sum(each(parts)), f.mul(sum(f.square(parts.weight)), 0.1)),
  "some labels and a penalty": ({ logits, label, weight }) =>
    f.add(f.crossEntropy(logits, label, ignore), f.mul(sum(f.square(weight)), 0.1)),
  "a constant more": (parts) => f.add(mean(each(parts)), 3),
  "a constant less, sum": (parts) => f.sub(sum(each(parts)), 3),
  "half of a sum and a constant": (parts) => f.mul(f.sub(sum(each(parts)), 3), 0.5),
  "a mean and a sum": ({ logits, y }) =>
    f.sub(f.mse(logits, y), f.mul(f.l1(logits, y, { reduction: "sum" }), 0.2)),
  "two tasks": ({ logits, label, y, mask }) => {
    const second = f.div(
      sum(f.mul(f.reduceSum(f.abs(f.sub(logits, y)), { axes: [1], keepdims: false }), mask)),
      f.maximum(sum(mask), 1),
    );
    return f.add(f.crossEntropy(logits, label, ignore), f.mul(second, 0.5));
  },
  "some labels beside all": ({ logits, label, y }) =>
    f.add(f.mul(f.crossEntropy(logits, label, ignore), 0.7), f.mse(logits, y)),
  "own rows by number": ({ m, logits, y }) =>
    f.mse(f.gather(logits, f.range(m.builder, "int32", 0, m.batch)), y),
  "own rows, counted from the end": ({ m, logits, y }) =>
    f.mse(f.gather(logits, f.sub(f.range(m.builder, "int32", 0, m.batch), m.batch)), y),
  "own rows, and a place in each by the data": ({ m, logits, dense }) => {
    const rows = f.reshape(f.range(m.builder, "int64", 0, m.batch), [m.batch, 1]);
    const places = f.reshape(f.cast(dense, "int64"), [m.batch, 1]);
    return mean(f.square(f.gatherND(logits, f.concat([rows, places], 1))));
  },
  "another order within each sample": ({ m, logits, y }) => {
    const numbers = Array.from({ length: m.batch * CLASSES }, (_, i) =>
      i % CLASSES === 0 ? i + CLASSES - 1 : i - 1,
    );
    const order = m.builder.constant(tensorFrom("int64", [m.batch * CLASSES], numbers));
    const turned = f.gather(f.reshape(logits, [m.batch * CLASSES]), order);
    return f.mse(f.reshape(turned, [m.batch, CLASSES]), y);
  },
  "a class by the data": ({ m, logits, dense }) =>
    mean(f.square(f.gatherElements(logits, f.reshape(dense, [m.batch, 1]), 1))),
  "a root of a mean": ({ logits, y }) => f.sqrt(f.mse(logits, y)),
  "a logarithm of a masked mean": (parts) =>
    f.log(f.div(sum(f.mul(each(parts), parts.mask)), sum(parts.mask))),
  "minus a mean": (parts) => f.neg(f.div(sum(f.mul(each(parts), parts.mask)), sum(parts.mask))),
  "ONNX, mean": onnxLoss("SoftmaxCrossEntropyLoss", {}),
  "ONNX, sum": onnxLoss("SoftmaxCrossEntropyLoss", { reduction: "sum" }),
  "ONNX, some labels": onnxLoss("SoftmaxCrossEntropyLoss", { ignore_index: IGNORED }),
  "ONNX, class weights": onnxLoss("SoftmaxCrossEntropyLoss", {}, true),
  "ONNX, some labels and weights": onnxLoss(
    "SoftmaxCrossEntropyLoss",
    { ignore_index: IGNORED },
    true,
  ),
  "ONNX, negative log-likelihood": onnxLoss("NegativeLogLikelihoodLoss", {
    ignore_index: IGNORED,
  }),
  "ONNX, negative log-likelihood, weights": onnxLoss("NegativeLogLikelihoodLoss", {}, true),
};

/** Fills field by field, for samples [start, end). */
function filling(
  definition: ModelDefinition,
  dtype: DType,
): (at: { start: number; end: number }) => FillBatch {
  const whole = definition.build({ batch: SAMPLES, mode: "train", dtype });
  const values = new Map<string, number[]>();
  for (const [seed, name] of whole.batch.entries()) {
    const type = typeOf(whole.graph, name);
    const isWhole = type.dtype !== dtype;
    const numbers = randomNumbers(seed + 5, elementCount(type.shape), [0, isWhole ? CLASSES : 1]);
    values.set(name, isWhole ? numbers.map(Math.floor) : numbers);
  }
  const isMissing = (index: number) => !LABELLED.includes(index);
  values.set(
    "label",
    values.get("label")?.map((v, i) => (isMissing(i) && values.has("mask") ? IGNORED : v)) ?? [],
  );
  values.set(
    "mask",
    Array.from({ length: SAMPLES }, (_, i) => (isMissing(i) ? 0 : 0.5 + i / 16)),
  );
  return ({ start, end }) =>
    (into) => {
      for (const [name, tensor] of Object.entries(into)) {
        if (name === "random_key") continue;
        const numbers = values.get(name) ?? [];
        const row = numbers.length / SAMPLES;
        const part = numbers.slice(start * row, end * row);
        tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, part).bytes);
      }
    };
}

interface Found {
  readonly loss: number;
  readonly gradients: Readonly<Record<string, number[]>>;
}

const RATE = 0.5;

/** Returns loss and gradients of one step, as each rank has them. */
async function stepped(
  definition: ModelDefinition,
  microBatches: number,
  ranks: number,
  dtype: DType,
): Promise<Found[]> {
  const fill = filling(definition, dtype);
  const built = definition.build({
    batch: SAMPLES / microBatches,
    mode: "train",
    dtype,
  });
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, ranks !== 3);
  const one = async (rank: number): Promise<Found> => {
    const group = simulated?.groups[rank];
    const trainer = await createTrainer({
      engine,
      model: built,
      optimizer: sgd({ learningRate: RATE }),
      microBatches,
      ranks: group && { group, adapt: false },
    });
    try {
      const before = await parametersOf(trainer);
      const positions = { start: 0, end: SAMPLES };
      const [own = positions] = trainer.ownPositions(positions);
      const { loss } = await trainer.step({ positions, fill: fill(own) });
      const now = await parametersOf(trainer);
      const gradients = Object.entries(before).map(([name, values]) => [
        name,
        values.map((value, index) => (value - (now[name]?.[index] as number)) / RATE),
      ]);
      return { loss, gradients: Object.fromEntries(gradients) as Found["gradients"] };
    } finally {
      trainer.close();
    }
  };
  const found = await Promise.all(Array.from({ length: ranks }, (_, rank) => one(rank)));
  await simulated?.close();
  return found;
}

async function parametersOf(trainer: Trainer): Promise<Record<string, number[]>> {
  const { parameters } = await trainer.read();
  return Object.fromEntries(Object.entries(parameters).map(([name, t]) => [name, toNumbers(t)]));
}

/** Executes the graph of the whole batch, differentiated as it is. */
async function witness(definition: ModelDefinition, dtype: DType): Promise<Found> {
  const whole = definition.build({ batch: SAMPLES, mode: "train", dtype });
  const trainer = await createTrainer({
    engine,
    model: whole,
    optimizer: sgd({ learningRate: 1 }),
  });
  const inputs: Record<string, Tensor> = {};
  for (const name of whole.batch) {
    const type = typeOf(whole.graph, name);
    inputs[name] = tensorFrom(
      type.dtype,
      type.shape,
      new Array<number>(elementCount(type.shape)).fill(0),
    );
  }
  await filling(definition, dtype)({ start: 0, end: SAMPLES })(inputs as never);
  const { parameters, states } = await trainer.read();
  for (const [name, { dtype, shape, bytes }] of Object.entries({ ...parameters, ...states })) {
    inputs[name] = { dtype, shape, bytes: Uint8Array.from(bytes) };
  }
  if (whole.randomKey !== undefined) {
    const keys = trainer.plan.batch.get(whole.randomKey);
    assert.ok(keys !== undefined);
    await trainer
      .step({
        positions: { start: 0, end: SAMPLES },
        fill: (into) => {
          const key = into[whole.randomKey as string] as Tensor;
          inputs[whole.randomKey as string] = { ...keys.type, bytes: Uint8Array.from(key.bytes) };
          throw new Error("seen");
        },
      })
      .catch(() => undefined);
  }
  trainer.close();
  const names = whole.parameters.map(({ name }) => name);
  const { graph, gradients } = differentiate(whole.graph, whole.loss, names);
  const results = await evaluate(engine, graph, inputs);
  const numbers = (name: string) => toNumbers(results[name] as Tensor);
  return {
    loss: numbers(whole.loss)[0] as number,
    gradients: Object.fromEntries([...gradients].map(([name, output]) => [name, numbers(output)])),
  };
}

function assertClose(found: Found, expected: Found, dtype: DType, what: string): void {
  const tolerance = dtype === "float64" ? 1e-10 : 5e-6;
  const near = (a: number, b: number) => Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b));
  assert.ok(near(found.loss, expected.loss), `${what}: loss ${found.loss}, not ${expected.loss}`);
  for (const [name, values] of Object.entries(expected.gradients)) {
    for (const [index, value] of values.entries()) {
      const own = found.gradients[name]?.[index] as number;
      assert.ok(near(own, value), `${what}: gradient of ${name}[${index}] ${own}, not ${value}`);
    }
  }
}

/** Numbers of micro-batches and workers. */
const CUTS = [
  [1, 1],
  [2, 2],
  [8, 3],
  [16, 4],
] as const;

async function assertWhole(definition: ModelDefinition, dtype: DType): Promise<void> {
  const expected = await witness(definition, dtype);
  assert.ok(Number.isFinite(expected.loss) && expected.loss !== 0);
  for (const [microBatches, ranks] of CUTS) {
    const what = `${microBatches} micro-batches, ${ranks} workers`;
    for (const found of await stepped(definition, microBatches, ranks, dtype)) {
      assertClose(found, expected, dtype, what);
    }
  }
}

for (const [name, loss] of Object.entries(LOSSES)) {
  // Softplus has no float64 kernel in this engine.
  const dtype = name.startsWith("binary") ? "float32" : "float64";
  test(`${name}: loss and gradient are those of the whole batch`, () =>
    assertWhole(model(loss), dtype));
}

const small = { layers: 1, width: 8, heads: 2, context: 6, vocabulary: 7 };
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  gpt: gpt({ ...small, dropout: 0.1 }),
  bert: bert({ ...small, maskRate: 0.3, padding: 0 }),
  dlrm: dlrm({ dense: 3, categories: [3, 3], width: 4, bottom: [4], top: [4] }),
  matrixFactorization: matrixFactorization({ users: 3, items: 3, width: 4 }),
  convnet: convnet({ image: [1, 8, 8], classes: 3, channels: [2], hidden: 4 }),
};

for (const [name, definition] of Object.entries(MODELS)) {
  test(`${name}: loss and gradient are those of the whole batch`, () =>
    assertWhole(definition, "float32"));
}

/** Losses in which a sample depends on the others of its batch. */
const RELATED: Readonly<Record<string, (parts: Parts) => Value>> = {
  contrastive: ({ logits, y, m }) => {
    const similar = f.matmul(logits, f.transpose(y, [1, 0]));
    return f.crossEntropy(similar, f.range(m.builder, "int32", 0, m.batch));
  },
  "a softmax over the batch": ({ logits, y }) =>
    f.neg(sum(f.mul(f.logSoftmax(logits, 0), f.softmax(y, 0)))),
  "the largest of the batch": (parts) => f.reduceMax(each(parts), all),
  "neighbours in the batch": ({ logits, y }) => f.mse(f.flip(logits, [0]), y),
  "distances from the mean of the batch": ({ logits }) =>
    mean(f.square(f.sub(logits, f.reduceMean(logits, { axes: [0] })))),
  "rows of the next sample, by numbers of the graph": ({ m, logits, y }) => {
    const next = Array.from({ length: m.batch }, (_, i) => (i + 1) % m.batch);
    return f.mse(f.gather(logits, m.builder.constant(tensorFrom("int32", [m.batch], next))), y);
  },
  "rows by numbers in the data": ({ logits, y, dense }) => f.mse(f.gather(logits, dense), y),
  "elements of other rows, by numbers in the data": ({ m, logits, dense }) => {
    const rows = f.reshape(dense, [m.batch, 1]);
    return mean(f.square(f.gatherElements(logits, rows, 0)));
  },
  "tuples of numbers in the data": ({ m, logits, dense }) => {
    const zero = f.reshape(dense, [m.batch, 1]);
    const tuples = f.concat([zero, f.reshape(dense, [m.batch, 1])], 1);
    return mean(f.square(f.gatherND(logits, f.cast(tuples, "int64"))));
  },
  "written to rows by numbers in the data": ({ m, logits, dense }) => {
    const rows = f.reshape(dense, [m.batch, 1]);
    const first = f.slice(logits, [{ axis: 1, start: 0, end: 1 }]);
    const sums = f.scatterElements(f.zerosLike(logits), rows, first, 0, "add");
    return mean(f.square(sums));
  },
  "sorted along the batch": ({ m, logits, y }) => f.mse(f.topK(logits, m.batch, 0).values, y),
  "a product of means": (parts) => f.mul(mean(each(parts)), mean(f.square(parts.logits))),
};

for (const [name, loss] of Object.entries(RELATED)) {
  test(`${name}: refused before the first step, unless the batch is computed whole`, async () => {
    const definition = model(loss);
    for (const microBatches of [4, 16]) {
      await assert.rejects(stepped(definition, microBatches, 1, "float64"), {
        code: "INVALID_OPTION",
        message: /whole batch cannot be computed from \d+ micro-batches.*\n.*microBatches to 1/s,
      });
    }
    const [found] = await stepped(definition, 1, 1, "float64");
    assertClose(found as Found, await witness(definition, "float64"), "float64", "whole");
  });
}

for (const microBatches of [1, 4]) {
  test(`a batch without a label changes nothing, in ${microBatches} micro-batches`, async () => {
    for (const loss of [LOSSES["cross-entropy of some labels"], LOSSES["ONNX, some labels"]]) {
      const definition = model(loss as (parts: Parts) => Value);
      const trainer = await createTrainer({
        engine,
        model: definition.build({ batch: SAMPLES / microBatches, mode: "train" }),
        optimizer: adamw({ learningRate: RATE }),
        microBatches,
      });
      const positions = { start: 0, end: SAMPLES };
      const fill = filling(definition, "float32")(positions);
      const unlabelled: FillBatch = async (into) => {
        await fill(into);
        const label = into["label"] as Tensor;
        const none = new Array<number>(SAMPLES).fill(IGNORED);
        label.bytes.set(tensorFrom("int32", [SAMPLES], none).bytes);
      };
      await trainer.step({ positions, fill });
      const before = await parametersOf(trainer);
      const result = await trainer.step({ positions, fill: unlabelled });
      assert.deepEqual(
        [result.isEmpty, result.loss, result.gradientNorm, trainer.steps],
        [true, 0, 0, 2],
      );
      assert.deepEqual(await parametersOf(trainer), before);
      assert.equal((await trainer.step({ positions, fill })).isEmpty, false);
      assert.notDeepEqual(await parametersOf(trainer), before);
      trainer.close();
    }
  });
}

/**
 * Losses with several denominators, which can all be 0 at once: no label counts, and every mask is
 * 0.
 */
const DENOMINATORS: Readonly<Record<string, (parts: Parts) => Value>> = {
  "two tasks, divided plainly": (parts) => {
    const { logits, label, mask } = parts;
    const counted = f.cast(f.not(f.equal(label, IGNORED)), logits.dtype);
    const first = f.div(sum(f.mul(each(parts), counted)), sum(counted));
    const sizes = f.reduceMean(f.abs(logits), { axes: [1], keepdims: false });
    const second = f.div(sum(f.mul(sizes, mask)), sum(mask));
    return f.add(first, f.mul(second, 0.5));
  },
  "two tasks, each held above 1": LOSSES["two tasks"] as (parts: Parts) => Value,
  "weights that add up to one": LOSSES["weights that add up to one"] as (parts: Parts) => Value,
  "weights that add up to one, and labels": (parts) => {
    const { logits, label, mask } = parts;
    const weights = f.div(mask, sum(mask));
    return f.add(sum(f.mul(each(parts), weights)), f.crossEntropy(logits, label, ignore));
  },
  "a plain quotient and a penalty": (parts) => {
    const { mask, weight } = parts;
    const quotient = f.div(sum(f.mul(each(parts), mask)), sum(mask));
    return f.add(quotient, f.mul(sum(f.square(weight)), 0.1));
  },
  "one over the count, twice": (parts) => {
    const { logits, label, mask } = parts;
    const counted = f.cast(f.not(f.equal(label, IGNORED)), logits.dtype);
    const share = (m: Value) => f.mul(sum(f.mul(each(parts), m)), f.reciprocal(sum(m)));
    return f.sub(share(counted), f.mul(share(mask), 0.25));
  },
};

type Change = (into: Parameters<FillBatch>[0]) => void;

const setAll =
  (name: string, value: number): Change =>
  (into) => {
    const { bytes, dtype, shape } = into[name] as Tensor;
    const values = new Array<number>(elementCount(shape)).fill(value);
    bytes.set(tensorFrom(dtype, shape, values).bytes);
  };
const unlabelled = setAll("label", IGNORED);
const unmasked = setAll("mask", 0);

/**
 * Makes a usual step, one whose batch is changed, and a usual one. Each rank returns what it saw.
 */
async function threeSteps(
  loss: (parts: Parts) => Value,
  [microBatches, ranks]: readonly [number, number],
  changes: readonly Change[],
) {
  const definition = model(loss);
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, true);
  const one = async (rank: number) => {
    const group = simulated?.groups[rank];
    const trainer = await createTrainer({
      engine,
      model: definition.build({ batch: SAMPLES / microBatches, mode: "train", dtype: "float64" }),
      optimizer: sgd({ learningRate: 0.01 }),
      microBatches,
      ranks: group && { group, adapt: false },
    });
    try {
      const positions = { start: 0, end: SAMPLES };
      const fill = filling(definition, "float64")(trainer.ownPositions(positions)[0] ?? positions);
      await trainer.step({ positions, fill });
      const before = await parametersOf(trainer);
      const changed: FillBatch = async (into) => {
        await fill(into);
        for (const change of changes) change(into);
      };
      const result = await trainer.step({ positions, fill: changed });
      const between = await parametersOf(trainer);
      const last = await trainer.step({ positions, fill });
      const end = await parametersOf(trainer);
      return { result, last, steps: trainer.steps, before, between, after: end };
    } finally {
      trainer.close();
    }
  };
  try {
    return await Promise.all(Array.from({ length: ranks }, (_, rank) => one(rank)));
  } finally {
    await simulated?.close();
  }
}

for (const [name, loss] of Object.entries(DENOMINATORS)) {
  test(`${name}: a batch in which nothing counts changes nothing, and the result says so`, async () => {
    for (const cut of CUTS) {
      for (const seen of await threeSteps(loss, cut, [unlabelled, unmasked])) {
        const { result, last, steps, before, between, after: end } = seen;
        assert.deepEqual([result.isEmpty, result.loss, result.gradientNorm], [true, 0, 0]);
        assert.deepEqual(between, before);
        assert.deepEqual([last.isEmpty, steps], [false, 3]);
        assert.notDeepEqual(end, between);
      }
    }
  });
}

test("labels clamped to 1 beside a penalty: without a label the penalty is the loss, and trains", async () => {
  const loss = LOSSES["some labels and a penalty"] as (parts: Parts) => Value;
  for (const cut of CUTS) {
    for (const { result, before, between } of await threeSteps(loss, cut, [unlabelled])) {
      const weights = before["head.weight"] ?? [];
      const penalty = weights.reduce((total, w) => total + 0.1 * w * w, 0);
      assert.equal(result.isEmpty, false);
      assert.ok(Math.abs(result.loss - penalty) < 1e-12, `${result.loss}, not ${penalty}`);
      const wanted = weights.map((w) => w - 0.01 * 0.2 * w);
      const now = between["head.weight"] ?? [];
      assert.ok(now.every((w, i) => Math.abs(w - (wanted[i] as number)) < 1e-12));
    }
  }
});

const NOT_FINITE: Readonly<Record<string, [keyof typeof DENOMINATORS, readonly Change[]]>> = {
  "one of two tasks has labels": ["two tasks, divided plainly", [unmasked]],
  "nothing counts, and the data hold no number": [
    "two tasks, divided plainly",
    [unlabelled, unmasked, setAll("x", Number.NaN)],
  ],
  "something that counts is divided by 0": [
    "unmasked over a count, and labels",
    [unlabelled, unmasked],
  ],
};
const UNMASKED = (parts: Parts) =>
  f.add(
    f.div(sum(each(parts)), sum(parts.mask)),
    f.crossEntropy(parts.logits, parts.label, ignore),
  );

for (const [what, [name, changes]] of Object.entries(NOT_FINITE)) {
  test(`${what}: the loss is not finite, and the step is refused`, async () => {
    for (const cut of CUTS) {
      await assert.rejects(threeSteps(DENOMINATORS[name] ?? UNMASKED, cut, changes), {
        code: "NOT_FINITE",
      });
    }
  });
}
