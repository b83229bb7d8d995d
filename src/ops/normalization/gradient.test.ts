/** Gradients of the normalizations that have no test file of their own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { backward } from "../../autodiff/index.ts";
import type { Value } from "../../graph/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

for (const [n, c, groups, ...rest] of [
  [2, 4, 2, 3],
  [1, 6, 3, 2, 2],
  [2, 2, 1, 4],
  [2, 3, 3, 3],
] as const) {
  test(`GroupNormalization: gradient of ${n}×${c}×${rest.join("×")} in ${groups} groups`, () => {
    checkGradient({
      inputs: { x: [n, c, ...rest], scale: [c], bias: [c] },
      build: ({ x, scale, bias }, builder) =>
        builder.one("GroupNormalization", [x, scale, bias], { num_groups: groups, epsilon: 0.1 }),
      range: [-2, 2],
      second: true,
    });
  });
}

test("InstanceNormalization: gradient", () => {
  checkGradient({
    inputs: { x: [2, 3, 2, 3], scale: [3], bias: [3] },
    build: ({ x, scale, bias }, builder) =>
      builder.one("InstanceNormalization", [x, scale, bias], { epsilon: 0.1 }),
    range: [-2, 2],
    second: true,
  });
});

test("LpNormalization: gradient for p 1 and 2, along each axis", () => {
  for (const p of [1, 2]) {
    for (const axis of [0, 1, -1]) {
      checkGradient({
        inputs: { x: [2, 3, 2] },
        build: ({ x }, builder) => builder.one("LpNormalization", [x], { p, axis }),
        range: [0.2, 2],
        second: true,
      });
    }
  }
});

test("LpNormalization: a line of zeros has a finite gradient", () => {
  const builder = newBuilder("zeros");
  const x = builder.input("x", { dtype: "float64", shape: [1, 3] });
  const y = builder.one("LpNormalization", [x], { p: 2 });
  assert.ok(backward([y], [x], [y])[0] !== undefined);
});

test("LRN: gradient over windows of odd and even size", () => {
  for (const size of [1, 2, 3, 5]) {
    checkGradient({
      inputs: { x: [2, 4, 3] },
      build: ({ x }, builder) =>
        builder.one("LRN", [x], { size, alpha: 0.8, beta: 0.6, bias: 1.5 }),
      range: [-2, 2],
      second: true,
    });
  }
});

const labels = tensorFrom("int64", [2, 3], [0, 2, 1, 3, 1, 0]);
const weights = tensorFrom("float64", [4], [0.5, 1, 2, 1.5]);

for (const op of ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"]) {
  test(`${op}: gradient with each reduction, weights and ignored labels`, () => {
    for (const reduction of ["none", "mean", "sum"]) {
      for (const ignore_index of [undefined, 1]) {
        for (const weighted of [false, true]) {
          checkGradient({
            inputs: { x: [2, 4, 3] },
            build: ({ x }, builder) => {
              const given = [x, builder.constant(labels)];
              if (weighted) given.push(builder.constant(weights));
              return builder.one(op, given, { reduction, ignore_index });
            },
            second: true,
          });
        }
      }
    }
  });
}

test("SoftmaxCrossEntropyLoss: gradient through the log-probabilities too", () => {
  checkGradient({
    inputs: { x: [2, 4, 3] },
    build: ({ x }, builder) =>
      builder.emit("SoftmaxCrossEntropyLoss", [x, builder.constant(labels)], {}, { outputs: 2 }),
    second: true,
  });
});

test("RotaryEmbedding: gradient in both layouts and orders, of a part of each head", () => {
  const table = (builder: Value["builder"], shape: number[], seed: number) =>
    builder.constant(
      tensorFrom(
        "float64",
        shape,
        Float64Array.from({ length: 3 * 2 * 2 }, (_, i) => Math.sin(i + seed)),
      ),
    );
  for (const interleaved of [0, 1]) {
    checkGradient({
      inputs: { x: [2, 2, 3, 6] },
      build: ({ x }, builder) =>
        builder.one(
          "RotaryEmbedding",
          [x, table(builder, [2, 3, 2], 0), table(builder, [2, 3, 2], 1)],
          { interleaved, rotary_embedding_dim: 4 },
        ),
      second: true,
    });
    checkGradient({
      inputs: { x: [2, 3, 8] },
      build: ({ x }, builder) =>
        builder.one(
          "RotaryEmbedding",
          [
            x,
            table(builder, [6, 2], 0),
            table(builder, [6, 2], 1),
            builder.constant(tensorFrom("int64", [2, 3], [0, 1, 2, 5, 4, 3])),
          ],
          { interleaved, num_heads: 2 },
        ),
    });
  }
});
