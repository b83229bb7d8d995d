import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine, type Device, type HostTensor } from "../engine/index.ts";
import {
  add,
  cast,
  exp,
  log,
  mul,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../functional/index.ts";
import { defineModel, type ModelDefinition } from "../nn/index.ts";
import { adamw, cosine, type Optimizer, sgd } from "../optimizer/index.ts";
import { GRADIENT } from "../plan/index.ts";
import { type DType, tensorFrom, toNumbers } from "../tensor/index.ts";
import { createTrainer } from "./create.ts";
import type { Trainer } from "./step.ts";
import type { BatchFields, StepRequest } from "./step-types.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const mean = (x: Parameters<typeof reduceMean>[0]) => reduceMean(x, { keepdims: false });

/** The model y = 3x - 1, learned from points on the line. */
const line = defineModel("line", (m) => {
  const x = m.input("x", [m.batch, 1]);
  const y = m.input("y", [m.batch, 1]);
  const weight = m.parameter("weight", [1, 1], { kind: "zeros" });
  const bias = m.parameter("bias", [1], { kind: "zeros" });
  const error = sub(add(mul(x, weight), bias), y);
  return { loss: mean(mul(error, error)) };
});

function write(tensor: HostTensor | undefined, values: readonly number[]): void {
  if (tensor === undefined) return;
  tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
}

function points(step: number, samples = 16, spoil?: (into: BatchFields) => void): StepRequest {
  const xs = Array.from({ length: samples }, (_, i) => Math.sin(i * 7 + step * 13));
  return {
    positions: { start: step * samples, end: (step + 1) * samples },
    fill: (into) => {
      write(into.x, xs);
      write(
        into.y,
        xs.map((x) => 3 * x - 1),
      );
      spoil?.(into);
    },
  };
}

interface Setup {
  readonly model?: ModelDefinition;
  readonly samples?: number;
  readonly microBatches?: number;
  readonly optimizer?: Optimizer;
  readonly dtype?: DType;
  readonly clip?: number;
  readonly on?: Device;
}

async function withTrainer<T>(setup: Setup, body: (trainer: Trainer) => Promise<T>): Promise<T> {
  const { model = line, samples = 16, microBatches = 1, dtype = "float32", clip } = setup;
  const shared = { batch: samples / microBatches, dtype };
  const trainer = await createTrainer({
    engine: setup.on ?? engine,
    model: model.build({ ...shared, mode: "train" }),
    evaluation: model.build({ ...shared, mode: "eval" }),
    optimizer: setup.optimizer ?? adamw({ learningRate: 0.1, weightDecay: 0 }),
    schedule: cosine({ warmup: 3 }),
    steps: 200,
    microBatches,
    clip,
  });
  try {
    return await body(trainer);
  } finally {
    trainer.close();
  }
}

async function numbers(trainer: Trainer): Promise<Record<string, number[]>> {
  const { parameters, slots, states } = await trainer.read();
  return Object.fromEntries(
    Object.entries({ ...parameters, ...slots, ...states }).map(([k, v]) => [k, toNumbers(v)]),
  );
}

for (const optimizer of [
  adamw({ learningRate: 0.1, weightDecay: 0 }),
  sgd({ learningRate: 0.2, momentum: 0.5 }),
]) {
  test(`${optimizer.kind} finds a line`, () =>
    withTrainer({ optimizer }, async (trainer) => {
      for (let step = 0; step < 200; step++) {
        const result = await trainer.step(points(step));
        assert.equal(result.step, step);
      }
      const { weight, bias } = await numbers(trainer);
      assert.ok(Math.abs((weight?.[0] as number) - 3) < 0.05, `weight ${weight}`);
      assert.ok(Math.abs((bias?.[0] as number) + 1) < 0.05, `bias ${bias}`);
      const { fill } = points(77);
      const [loss = NaN] = await trainer.evaluate(0, fill);
      assert.ok(loss < 1e-3);
    }));
}

test("micro-batches give the step of the whole batch", async () => {
  const run = (microBatches: number) =>
    withTrainer({ microBatches, samples: 12, dtype: "float64", clip: 0.7 }, async (trainer) => {
      const results: object[] = [];
      for (let step = 0; step < 8; step++) results.push(await trainer.step(points(step, 12)));
      return { results, tensors: await numbers(trainer) };
    });
  const whole = await run(1);
  for (const microBatches of [2, 3, 4, 6, 12]) {
    const parts = await run(microBatches);
    for (const [step, result] of parts.results.entries()) {
      for (const [key, value] of Object.entries(result)) {
        const wanted = (whole.results[step] as Record<string, number>)[key] as number;
        assert.ok(Math.abs(value - wanted) < 1e-12, `${microBatches}: ${key} of step ${step}`);
      }
    }
    for (const [name, values] of Object.entries(parts.tensors)) {
      for (const [i, value] of values.entries()) {
        assert.ok(Math.abs(value - (whole.tensors[name]?.[i] as number)) < 1e-12, name);
      }
    }
  }
});

/** A model that keeps a running mean of x and counts its steps. */
const counting = defineModel("counting", (m) => {
  const x = m.input("x", [m.batch, 1]);
  const weight = m.parameter("weight", [1], { kind: "ones" });
  const average = m.state("average", [], { kind: "zeros" });
  const count = m.state("count", [], { kind: "zeros" }, "int64");
  if (m.mode === "train") {
    average.update(add(mul(average.value, 0.9), mul(mean(x), 0.1)));
    count.update(add(count.value, m.builder.scalar("int64", 1)));
  }
  return { loss: mean(mul(sub(x, average.value), weight)) };
});

test("a step computes the gradient of each micro-batch once", async () => {
  for (const microBatches of [1, 2, 4]) {
    await withTrainer({ microBatches }, async ({ plan }) => {
      const { totals, compute } = plan.sides[0];
      const written = [...totals, ...compute].flatMap((stage) =>
        "runs" in stage
          ? stage.runs.filter(({ graph }) => graph === GRADIENT).map(({ outputs }) => outputs)
          : [],
      );
      assert.equal(written.length, microBatches);
    });
  }
});

test("states change once a step, by the mean over micro-batches, and only when the step is committed", async () => {
  for (const microBatches of [1, 2, 4]) {
    await withTrainer({ model: counting, microBatches, dtype: "float64" }, async (trainer) => {
      let average = 0;
      for (let step = 0; step < 4; step++) {
        const request = points(step);
        await trainer.step(request);
        const xs = Array.from({ length: 16 }, (_, i) => Math.sin(i * 7 + step * 13));
        average = 0.9 * average + 0.1 * (xs.reduce((a, b) => a + b, 0) / 16);
        const now = await numbers(trainer);
        assert.ok(Math.abs((now.average?.[0] as number) - average) < 1e-12);
        assert.deepEqual(now.count, [step + 1]);
      }
      const before = await numbers(trainer);
      await assert.rejects(trainer.step(points(4, 16, spoil)), { code: "NOT_FINITE" });
      assert.deepEqual(await numbers(trainer), before);
    });
  }
});

function spoil(into: BatchFields): void {
  const { x } = into;
  if (x !== undefined) write(x, [...toNumbers(x).slice(0, -1), Number.NaN]);
}

test("a NaN in the batch stops the step, names the tensor and changes nothing", () =>
  withTrainer({ microBatches: 4 }, async (trainer) => {
    for (let step = 0; step < 3; step++) await trainer.step(points(step));
    const before = await numbers(trainer);
    await assert.rejects(trainer.step(points(3, 16, spoil)), {
      code: "NOT_FINITE",
      message:
        /^Step 4: the loss is NaN\. The first input that is not finite is "x" \(micro-batch 3\)/,
    });
    assert.deepEqual(await numbers(trainer), before);
    assert.equal(trainer.steps, 3);
    assert.equal((await trainer.step(points(3))).step, 3);
  }));

test("the error names the first activation or gradient that is not finite", async () => {
  const model = (name: string, body: (x: Parameters<typeof log>[0]) => typeof x) =>
    defineModel(name, (m) => {
      const x = m.input("x", [m.batch, 1]);
      const weight = m.parameter("weight", [1], { kind: "zeros" });
      const layer = m.child("layer");
      return { loss: layer.within(() => reduceSum(body(mul(x, weight)), { keepdims: false })) };
    });
  await withTrainer({ model: model("logarithm", log) }, (trainer) =>
    assert.rejects(trainer.step(points(0)), {
      code: "NOT_FINITE",
      message: /The first activation that is not finite is "layer\/Log_1" of node "layer\/Log_1"/,
    }),
  );
  // An infinity that a later node removes is not blamed.
  const masked = model("masked", (x) => add(exp(log(x)), sqrt(sub(mul(x, x), 1))));
  await withTrainer({ model: masked }, (trainer) =>
    assert.rejects(trainer.step(points(0)), { message: /activation .* "layer\/Sqrt_1"/ }),
  );
  await withTrainer({ model: model("root", (x) => sqrt(mul(x, x))) }, (trainer) =>
    assert.rejects(trainer.step(points(0)), {
      code: "NOT_FINITE",
      message:
        /the gradient norm is NaN\. The first gradient that is not finite is "gradient\/layer/,
    }),
  );
});

test("a trainer continues from another's tensors with the same bits", async () => {
  const setup = { model: counting, microBatches: 2 };
  const straight = await withTrainer(setup, async (trainer) => {
    for (let step = 0; step < 9; step++) await trainer.step(points(step));
    return numbers(trainer);
  });
  const kept = await withTrainer(setup, async (trainer) => {
    for (let step = 0; step < 5; step++) await trainer.step(points(step));
    return numbers(trainer);
  });
  const resumed = await withTrainer(setup, async (trainer) => {
    const { parameters, slots, states } = trainer.tensors();
    for (const [name, place] of Object.entries({ ...parameters, ...slots, ...states })) {
      engine.upload(place, tensorFrom(place.dtype, place.shape, kept[name] ?? []).bytes);
    }
    trainer.resumeAt(5);
    for (let step = 5; step < 9; step++) await trainer.step(points(step));
    return numbers(trainer);
  });
  assert.deepEqual(resumed, straight);
});

test("an abort before the commit changes nothing", () =>
  withTrainer({}, async (trainer) => {
    await trainer.step(points(0));
    const before = await numbers(trainer);
    const reason = new Error("enough");
    await assert.rejects(trainer.step({ ...points(1), signal: AbortSignal.abort(reason) }), reason);
    assert.deepEqual(await numbers(trainer), before);
    assert.equal(trainer.steps, 1);
  }));

test("a step whose batch cannot be read changes nothing", () =>
  withTrainer({}, async (trainer) => {
    const before = await numbers(trainer);
    const failure = new Error("no such file");
    const fill = () => Promise.reject(failure);
    await assert.rejects(trainer.step({ positions: { start: 0, end: 16 }, fill }), failure);
    await assert.rejects(trainer.evaluate(0, fill), failure);
    assert.deepEqual(await numbers(trainer), before);
    assert.equal((await trainer.step(points(0))).step, 0);
  }));

test("two steps at once are refused", () =>
  withTrainer({}, async (trainer) => {
    const first = trainer.step(points(0));
    await assert.rejects(trainer.step(points(1)), /follow each other/);
    assert.equal((await first).step, 0);
  }));

test("keys of random layers follow the samples' positions, not the split into micro-batches", async () => {
  const seen = new Map<number, number[]>();
  const keyed = defineModel("keyed", (m) => {
    const x = m.input("x", [m.batch, 1]);
    const weight = m.parameter("weight", [1], { kind: "ones" });
    // The gradient of the parameter is the mean of the keys.
    const key = reshape(cast(m.key, x.dtype), x.shape);
    return { loss: mean(mul(add(mul(x, 0), key), weight)) };
  });
  for (const microBatches of [1, 4]) {
    const setup = { model: keyed, microBatches, dtype: "float64" } as const;
    await withTrainer(setup, async (trainer) => {
      const losses: number[] = [];
      for (let step = 0; step < 3; step++)
        losses.push((await trainer.step(points(step))).gradientNorm);
      seen.set(microBatches, losses);
    });
  }
  const [one, four] = [seen.get(1) ?? [], seen.get(4) ?? []];
  assert.equal(new Set(one).size, 3);
  for (const [i, norm] of one.entries()) assert.ok(Math.abs(norm - (four[i] as number)) < 1e-3);
});

test("a closed trainer refuses a step and says why", async () => {
  const trainer = await withTrainer({}, async (open) => open);
  await assert.rejects(trainer.step(points(0)), { code: "ENGINE_CLOSED" });
  assert.throws(() => trainer.tensors(), { code: "ENGINE_CLOSED" });
});
