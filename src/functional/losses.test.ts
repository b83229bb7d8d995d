import assert from "node:assert/strict";
import { test } from "node:test";
import { checkGradient } from "../../test/support/gradient-check.ts";
import type { Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { interpret } from "../reference/index.ts";
import { tensorFrom, toNumbers } from "../tensor/index.ts";
import {
  binaryCrossEntropyWithLogits,
  crossEntropy,
  huber,
  klDivergence,
  l1,
  mse,
} from "./index.ts";

const labels = tensorFrom("int32", [2, 3], [0, 3, 1, 2, 0, 1]);

test("Cross-entropy: gradient with ignored labels, smoothing, both reductions and other axes", () => {
  for (const options of [
    {},
    { ignoreIndex: 1 },
    { labelSmoothing: 0.2 },
    { ignoreIndex: 0, labelSmoothing: 0.1, reduction: "sum" },
  ] as const) {
    for (const axis of [-1, 1]) {
      checkGradient({
        inputs: { logits: axis === 1 ? [2, 4, 3] : [2, 3, 4] },
        build: ({ logits }, builder) =>
          crossEntropy(logits as Value, builder.constant(labels), { ...options, axis }),
        range: [-3, 3],
        second: true,
      });
    }
  }
});

test("Cross-entropy is stable for logits of any size, and finite when every label is ignored", () => {
  const at = (logits: number[], ignoreIndex?: number) => {
    const b = newBuilder("loss");
    const x = b.constant(tensorFrom("float32", [2, 2], logits));
    const y = b.constant(tensorFrom("int64", [2], [0, 1]));
    const loss = crossEntropy(x, y, ignoreIndex === undefined ? {} : { ignoreIndex });
    return toNumbers(interpret(b.build([loss]), {})[loss.name] as ReturnType<typeof tensorFrom>)[0];
  };
  assert.ok(at([1e4, -1e4, -1e4, 1e4]) === 0);
  assert.equal(at([-1e4, 1e4, 1e4, -1e4]), 2e4);
  assert.ok(at([1e4, -1e4, 1e4, -1e4], 1) === 0);
});

test("Losses of two tensors: gradients away from the kinks", () => {
  const losses: Record<string, (a: Value, b: Value) => Value> = {
    mse,
    l1,
    huber: (a, b) => huber(a, b, { delta: 0.4 }),
    binaryCrossEntropyWithLogits,
    weighted: (a, b) => binaryCrossEntropyWithLogits(a, b, { positiveWeight: 3 }),
    klDivergence,
    klOfLogs: (a, b) => klDivergence(a, b, { logTarget: true, reduction: "mean" }),
  };
  for (const [name, loss] of Object.entries(losses)) {
    checkGradient({
      inputs: { a: [2, 3], b: [2, 3] },
      build: ({ a, b }) => loss(a as Value, b as Value),
      range: [0.1, 0.9],
      seed: name.length,
    });
  }
});

test("a loss says which shapes do not fit", () => {
  const b = newBuilder("loss");
  const x = b.input("x", { dtype: "float32", shape: [4, 1] });
  const y = b.input("y", { dtype: "float32", shape: [4] });
  const labelled = b.input("labels", { dtype: "int64", shape: [3] });
  assert.throws(() => mse(x, y), { code: "SHAPE_MISMATCH", message: /\[4, 1\].*\[4\]/s });
  assert.throws(() => crossEntropy(x, labelled), {
    code: "SHAPE_MISMATCH",
    message: /must be \[4\], got \[3\]/,
  });
});
