/**
 * Lion, Adafactor and Muon compared with plain transcriptions, and properties of all optimizers.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine, createReferenceEngine, type Device } from "../src/engine/index.ts";
import { adafactor, adam, adamw, lion, muon, type Optimizer, sgd } from "../src/optimizer/index.ts";
import { elementCount, type Shape } from "../src/tensor/index.ts";
import { type Numbers, runOptimizer, worstDifference } from "./support/optimizer-run.ts";
import {
  type PlainOptimizer,
  plainAdafactor,
  plainLion,
  plainMuon,
} from "./support/plain-optimizers.ts";
import { randomNumbers } from "./support/random.ts";

const engine = createOrtEngine({ threads: 2 });
const reference = createReferenceEngine();
after(async () => {
  await engine.close();
  await reference.close();
});

function draw(shapes: Readonly<Record<string, Shape>>, seed: number): Numbers {
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape], index) => [
      name,
      randomNumbers(seed * 101 + index, elementCount(shape)),
    ]),
  );
}

function problem(shapes: Readonly<Record<string, Shape>>, steps: number) {
  const gradients = Array.from({ length: steps }, (_, step) => draw(shapes, step + 2));
  return { shapes, start: draw(shapes, 1), gradients };
}

async function compare(
  optimizer: Optimizer,
  shapes: Readonly<Record<string, Shape>>,
  plain: (name: string) => PlainOptimizer,
): Promise<void> {
  const run = problem(shapes, 10);
  await compareOn(reference, 1e-12, run, optimizer, plain);
  // ONNX Runtime fuses a factor into a matrix product as a float32, even between doubles.
  await compareOn(engine, optimizer.kind === "muon" ? 1e-6 : 1e-12, run, optimizer, plain);
}

async function compareOn(
  on: Device,
  tolerance: number,
  run: ReturnType<typeof problem>,
  optimizer: Optimizer,
  plain: (name: string) => PlainOptimizer,
): Promise<void> {
  const { trace } = await runOptimizer(on, { ...run, optimizer });
  for (const [name, shape] of Object.entries(run.shapes)) {
    const gradients = run.gradients.map((step) => step[name] ?? []);
    const wanted = plain(name)(run.start[name] ?? [], shape, gradients);
    for (const [step, values] of wanted.entries()) {
      const worst = worstDifference({ [name]: trace[step]?.[name] ?? [] }, { [name]: values });
      assert.ok(worst < tolerance, `${name}, step ${step}: differs by ${worst}`);
    }
  }
}

test("lion follows the paper", async () => {
  const options = { learningRate: 0.01, betas: [0.9, 0.99], weightDecay: 0.1 } as const;
  await compare(lion(options), { weight: [7, 5], bias: [3] }, (name) =>
    plainLion(name === "bias" ? { ...options, weightDecay: 0 } : options),
  );
});

test("adafactor follows PyTorch's", async () => {
  const options = { learningRate: 0.05, beta2Decay: -0.8, weightDecay: 0.1 };
  const rest = { ...options, eps: [2 ** -52, 1e-3], d: 1 } as const;
  await compare(adafactor(options), { weight: [6, 4], other: [3, 9], bias: [5] }, (name) =>
    plainAdafactor(name === "bias" ? { ...rest, weightDecay: 0 } : rest),
  );
});

for (const nesterov of [true, false]) {
  test(`muon follows PyTorch's, ${nesterov ? "with" : "without"} Nesterov`, async () => {
    const options = { learningRate: 0.02, momentum: 0.9, weightDecay: 0.1, nesterov };
    const adjust = (rows: number, columns: number) => Math.sqrt(Math.max(1, rows / columns));
    await compare(muon(options), { wide: [4, 7], tall: [6, 3], square: [5, 5] }, () =>
      plainMuon({ ...options, adjust }),
    );
  });
}

test("muon leaves embeddings, heads and vectors to adamw", async () => {
  const shapes = { "token_embedding.weight": [6, 4], "head.weight": [4, 6], gain: [4] };
  const run = problem(shapes, 5);
  const options = { learningRate: 0.01 };
  const mixed = await runOptimizer(engine, { ...run, optimizer: muon({ adamw: options }) });
  const plain = await runOptimizer(engine, { ...run, optimizer: adamw(options) });
  assert.deepEqual(mixed.trace, plain.trace);
});

test("only matrices decay unless a selector says otherwise", async () => {
  const shapes = { "a.weight": [2, 2], "b.weight": [2, 2], bias: [2] };
  const zeros = { "a.weight": [0, 0, 0, 0], "b.weight": [0, 0, 0, 0], bias: [0, 0] };
  const ones = { "a.weight": [1, 1, 1, 1], "b.weight": [1, 1, 1, 1], bias: [1, 1] };
  const shrunk = async (optimizer: Optimizer): Promise<string[]> => {
    const run = { shapes, start: ones, gradients: [zeros], optimizer };
    const { trace } = await runOptimizer(engine, run);
    return Object.entries(trace[0] ?? {})
      .filter(([, values]) => values.every((value) => value < 1))
      .map(([name]) => name)
      .sort();
  };
  const base = { learningRate: 0.1, weightDecay: 0.5 };
  assert.deepEqual(await shrunk(adamw(base)), ["a.weight", "b.weight"]);
  assert.deepEqual(await shrunk(adamw({ ...base, decay: {} })), ["a.weight", "b.weight", "bias"]);
  assert.deepEqual(await shrunk(sgd({ ...base, decay: { exclude: "^b\\." } })), [
    "a.weight",
    "bias",
  ]);
  assert.deepEqual(await shrunk(lion({ ...base, decay: { include: /^B/i } })), [
    "b.weight",
    "bias",
  ]);
});

// The parameters are long enough for blocks of 16, 4 and 1 tiles, in groups with and without decay.
const LARGE: Readonly<Record<string, Shape>> = {
  w1: [300, 700],
  b1: [700],
  w2: [700, 33],
  emb: [128, 96],
  b2: [40_000],
};

for (const [name, optimizer] of Object.entries({
  sgd: sgd({ learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 }),
  adam: adam({ weightDecay: 0.1 }),
  adamw: adamw(),
  lion: lion({ weightDecay: 0.1 }),
  adafactor: adafactor(),
  muon: muon(),
})) {
  test(`${name} gives the same bits on 1 and 2 threads, in float32`, async () => {
    const single = createOrtEngine({ threads: 1 });
    try {
      const run = { ...problem(LARGE, 3), optimizer, dtype: "float32", clip: 1 } as const;
      const one = await runOptimizer(single, run);
      const two = await runOptimizer(engine, run);
      assert.deepEqual(one.norms, two.norms);
      assert.equal(worstDifference(one.trace.at(-1) ?? {}, two.trace.at(-1) ?? {}), 0);
      assert.notDeepEqual(one.trace.at(0), one.trace.at(-1));
    } finally {
      await single.close();
    }
  });
}

for (const optimizer of [
  adamw({ weightDecay: 0.1 }),
  sgd({ momentum: 0.9 }),
  adafactor(),
  muon(),
]) {
  for (const dtype of ["float16", "bfloat16"] as const) {
    test(`${optimizer.kind} updates ${dtype} in float32`, async () => {
      const shapes = { weight: [20, 30], bias: [7] };
      const run = problem(shapes, 4);
      const silent = { weight: run.start.weight?.map(() => 0) ?? [], bias: [0, 0, 0, 0, 0, 0, 0] };
      const gradients = [silent, ...run.gradients];
      const full = await runOptimizer(reference, { ...run, gradients, optimizer });
      const half = await runOptimizer(reference, { ...run, gradients, optimizer, dtype });
      const worst = worstDifference(half.trace.at(-1) ?? {}, full.trace.at(-1) ?? {});
      assert.ok(worst < (dtype === "float16" ? 0.005 : 0.04), `differs by ${worst}`);
    });
  }
}
