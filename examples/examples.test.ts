/**
 * Every example learns: to a quick target in seconds, and to its full target with
 * LOCKSTEP_NIGHTLY=1, which runs all of its steps. Without the real data, a stand-in only has to be
 * learned better than at the start.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import type { DataSource } from "../src/data/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { overrideRun, type Run } from "../src/run/index.ts";
import { digits, movieRatings, shakespeare } from "../test/support/data.ts";
import { lastMean, type Trained, trainRun } from "../test/support/train.ts";
import bert from "./bert.ts";
import charLstm from "./char-lstm.ts";
import clicks from "./clicks.ts";
import fromPytorch from "./from-pytorch.ts";
import mnistConvnet from "./mnist-convnet.ts";
import mnistMlp from "./mnist-mlp.ts";
import mnistResnet from "./mnist-resnet.ts";
import movielens from "./movielens.ts";
import oscillator from "./oscillator.ts";
import ownLayer from "./own-layer.ts";
import ownLoss from "./own-loss.ts";
import ownModel from "./own-model.ts";
import shakespeareRun from "./shakespeare.ts";

const nightly = process.env["LOCKSTEP_NIGHTLY"] === "1";
const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

interface Target {
  /** The output of the model on held-out data that the target is about. */
  readonly output: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

interface Example {
  readonly run: Run;
  readonly data?: { readonly source: DataSource; readonly real: boolean };
  /** The number of steps of the quick test. */
  readonly steps: number;
  readonly quick: Target;
  /** The target after all steps. */
  readonly full: Target;
  readonly samples?: number;
}

const EXAMPLES: readonly Example[] = [
  {
    run: shakespeareRun,
    data: shakespeare(),
    steps: 60,
    quick: { output: "loss", atMost: 2.75 },
    full: { output: "loss", atMost: 1.65 },
    samples: 64,
  },
  {
    run: charLstm,
    data: shakespeare(),
    steps: 60,
    quick: { output: "loss", atMost: 2.75 },
    full: { output: "loss", atMost: 1.9 },
    samples: 64,
  },
  {
    run: bert,
    data: shakespeare(),
    steps: 100,
    quick: { output: "loss", atMost: 3.5 },
    full: { output: "loss", atMost: 2.1 },
    samples: 256,
  },
  {
    run: mnistMlp,
    data: digits(),
    steps: 200,
    quick: { output: "accuracy", atLeast: 0.88 },
    full: { output: "accuracy", atLeast: 0.95 },
  },
  {
    run: mnistConvnet,
    data: digits(),
    steps: 60,
    quick: { output: "accuracy", atLeast: 0.8 },
    full: { output: "accuracy", atLeast: 0.97 },
  },
  {
    run: fromPytorch,
    data: digits(),
    steps: 80,
    quick: { output: "accuracy", atLeast: 0.88 },
    full: { output: "accuracy", atLeast: 0.97 },
  },
  {
    run: mnistResnet,
    data: digits(),
    // Fewer steps show little: while the learning rate is highest, the running statistics lag
    // behind.
    steps: 100,
    quick: { output: "accuracy", atLeast: 0.85 },
    full: { output: "accuracy", atLeast: 0.97 },
    samples: 500,
  },
  {
    run: movielens,
    data: movieRatings(),
    steps: 500,
    quick: { output: "loss", atMost: 0.95 },
    full: { output: "loss", atMost: 0.87 },
    samples: 5000,
  },
  {
    run: clicks,
    steps: 300,
    quick: { output: "loss", atMost: 0.5 },
    full: { output: "loss", atMost: 0.46 },
  },
  {
    run: oscillator,
    steps: 1500,
    quick: { output: "error", atMost: 1e-3 },
    full: { output: "error", atMost: 1e-6 },
  },
  {
    run: ownModel,
    data: movieRatings(),
    steps: 250,
    quick: { output: "loss", atMost: 1 },
    full: { output: "loss", atMost: 0.92 },
  },
  {
    run: ownLayer,
    data: digits(),
    steps: 80,
    quick: { output: "accuracy", atLeast: 0.85 },
    full: { output: "accuracy", atLeast: 0.95 },
  },
  {
    run: ownLoss,
    steps: 300,
    quick: { output: "loss", atMost: 0.036 },
    full: { output: "loss", atMost: 0.032 },
  },
];

for (const example of EXAMPLES) {
  test(`${example.run.name} learns`, async () => {
    const { data, samples = 1000 } = example;
    const target = nightly ? example.full : example.quick;
    const run = overrideRun(example.run, {
      steps: nightly ? undefined : example.steps,
      data: data?.source,
    });
    const outputs = [...new Set(["loss", target.output])];
    const trained = await trainRun(run, { engine, samples, outputs });
    const [first = Number.NaN] = trained.losses;
    assert.ok(lastMean(trained.losses, 10) < 0.9 * first, `loss ${first} at the start`);
    if (data?.real !== false) checkTarget(trained, target);
  });
}

function checkTarget({ outputs }: Trained, { output, atLeast, atMost }: Target): void {
  const value = outputs[output]?.[0] ?? Number.NaN;
  if (atLeast !== undefined) assert.ok(value >= atLeast, `${output} ${value}, not ${atLeast}`);
  if (atMost !== undefined) assert.ok(value <= atMost, `${output} ${value}, not ${atMost}`);
}

test("a user's own example is shorter than a page", () => {
  for (const name of ["own-model", "own-layer", "own-loss"]) {
    const file = new URL(`../../examples/${name}.ts`, import.meta.url);
    const lines = readFileSync(file, "utf8").trimEnd().split("\n").length;
    assert.ok(lines < 60, `${name}: ${lines} lines`);
  }
});

test("own-loss gives a range, lower end first", async () => {
  const { outputs } = await trainRun(overrideRun(ownLoss, { steps: 300 }), {
    engine,
    samples: 400,
  });
  const width = (outputs["high"] ?? []).map((high, i) => high - (outputs["low"]?.[i] ?? 0));
  assert.ok(
    width.every((w) => w > 0),
    "the range is the right way round",
  );
});
