/** Ten steps of each optimizer equal PyTorch's, in float64 (numbers by optimizers.py). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { createOrtEngine, createReferenceEngine } from "../../src/engine/index.ts";
import { type AdamOptions, adam, adamw, type Optimizer, sgd } from "../../src/optimizer/index.ts";
import { type Numbers, runOptimizer, worstDifference } from "../support/optimizer-run.ts";

interface Fixture {
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly start: Numbers;
  readonly gradients: readonly Numbers[];
  readonly cases: Readonly<Record<string, { trace: readonly Numbers[]; norms: readonly number[] }>>;
}

const fixture = JSON.parse(
  readFileSync(new URL("../../../test/torch/fixtures/optimizers.json", import.meta.url), "utf8"),
) as Fixture;

// PyTorch decays every parameter.
const all = { decay: {} };
const tunedOptions: AdamOptions = {
  learningRate: 0.02,
  betas: [0.8, 0.95],
  eps: 1e-6,
  weightDecay: 0.1,
  ...all,
};
const momentumOptions = { learningRate: 0.1, momentum: 0.9, weightDecay: 0.01, ...all };
const OPTIMIZERS: Record<string, { optimizer: Optimizer; clip?: number }> = {
  sgd: { optimizer: sgd({ learningRate: 0.1 }) },
  "sgd momentum": { optimizer: sgd(momentumOptions) },
  "sgd dampening": { optimizer: sgd({ learningRate: 0.1, momentum: 0.9, dampening: 0.3 }) },
  "sgd nesterov": {
    optimizer: sgd({ ...momentumOptions, nesterov: true, weightDecay: 0.02 }),
  },
  adam: { optimizer: adam({ learningRate: 0.01 }) },
  "adam decay": { optimizer: adam({ ...tunedOptions, learningRate: 0.01 }) },
  adamw: { optimizer: adamw(all) },
  "adamw tuned": { optimizer: adamw(tunedOptions) },
  "adamw clipped": { optimizer: adamw(tunedOptions), clip: 1.5 },
  "sgd clipped": { optimizer: sgd(momentumOptions), clip: 0.5 },
};

test("every case of PyTorch is compared", () => {
  assert.deepEqual(Object.keys(OPTIMIZERS).sort(), Object.keys(fixture.cases).sort());
});

for (const create of [() => createOrtEngine({ threads: 2 }), createReferenceEngine]) {
  const engine = create();
  after(() => engine.close());
  for (const [name, { optimizer, clip }] of Object.entries(OPTIMIZERS)) {
    test(`${name} takes PyTorch's steps on ${engine.name}`, async () => {
      const { shapes, start, gradients, cases } = fixture;
      const run = { shapes, start, gradients, optimizer };
      const got = await runOptimizer(engine, clip === undefined ? run : { ...run, clip });
      const wanted = cases[name];
      assert.ok(wanted !== undefined);
      for (const [step, parameters] of wanted.trace.entries()) {
        const worst = worstDifference(got.trace[step] ?? {}, parameters);
        assert.ok(worst < 1e-12, `step ${step}: differs by ${worst}`);
      }
      for (const [step, norm] of wanted.norms.entries()) {
        assert.ok(Math.abs((got.norms[step] as number) - norm) < 1e-12, `norm of step ${step}`);
      }
    });
  }
}
