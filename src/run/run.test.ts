import assert from "node:assert/strict";
import { test } from "node:test";
import { text } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { defineRun, isRun, overrideRun, type RunOptions } from "./run.ts";

const options: RunOptions = {
  model: gpt({ layers: 1, width: 16, heads: 2, context: 16 }),
  data: text("*.txt"),
  optimizer: adamw({ learningRate: 1e-3 }),
  batch: 8,
  steps: 95,
};

test("defaults follow from the stated options", () => {
  const { name, microBatches, seed, evaluate, checkpointEvery } = defineRun(options);
  assert.deepEqual(
    { name, microBatches, seed, evaluate, checkpointEvery },
    {
      name: "gpt",
      microBatches: 1,
      seed: 1,
      evaluate: { every: 10, samples: 256 },
      checkpointEvery: 10,
    },
  );
  assert.equal(defineRun({ ...options, steps: 3 }).checkpointEvery, 1);
});

test("an override of the command line changes only the defaults that depend on it", () => {
  const run = defineRun({ ...options, evaluate: { samples: 7 }, seed: 4 });
  const short = overrideRun(run, { steps: 20, batch: undefined, seed: undefined });
  assert.deepEqual(
    [short.steps, short.checkpointEvery, short.evaluate, short.batch, short.seed],
    [20, 2, { every: 2, samples: 7 }, 8, 4],
  );
  const stated = overrideRun(defineRun({ ...options, checkpointEvery: 33 }), { steps: 20 });
  assert.equal(stated.checkpointEvery, 33);
});

test("every option is checked, and the error names the wrong one", () => {
  const wrong: readonly [string, unknown][] = [
    ["model", undefined],
    ["model", {}],
    ["data", "words.txt"],
    ["data", {}],
    ["optimizer", "adam"],
    ["optimizer", null],
    ["batch", 0],
    ["batch", 1.5],
    ["batch", "8"],
    ["steps", -1],
    ["steps", Number.NaN],
    ["name", ""],
    ["clipNorm", 0],
    ["clipNorm", Number.POSITIVE_INFINITY],
    ["microBatches", 0],
    ["seed", -1],
    ["seed", 2 ** 32],
    ["evaluate", 5],
    ["evaluate", { every: 0 }],
    ["evaluate", { samples: 0.5 }],
    ["checkpointEvery", 0],
    ["sample", "the "],
    ["sample", { tokens: 0 }],
  ];
  for (const [name, value] of wrong) {
    const stated = { ...options, [name]: value } as RunOptions;
    assert.throws(
      () => defineRun(stated),
      (error) => {
        assert.ok(error instanceof LockstepError && error.code === "INVALID_OPTION", name);
        assert.ok(error.message.startsWith(`defineRun: ${name}`), error.message);
        return true;
      },
    );
  }
  assert.throws(() => defineRun({ ...options, batch: 0, steps: 0 }), /batch: .*; steps: /);
  assert.throws(() => defineRun({ ...options, microBatches: 3 }), /8 cannot be cut into 3 equal/);
  assert.throws(() => overrideRun(defineRun({ ...options, microBatches: 4 }), { batch: 6 }), {
    code: "INVALID_OPTION",
  });
});

test("only the result of defineRun counts as a run", () => {
  assert.ok(isRun(defineRun(options)));
  for (const value of [options, undefined, null, 1, {}, "run"]) assert.ok(!isRun(value));
});
