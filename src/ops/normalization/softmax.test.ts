import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { backward } from "../../autodiff/index.ts";
import {
  crossEntropy,
  gatherElements,
  logSoftmax,
  matmul,
  reshape,
  softmax,
  transpose,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const shape = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });

for (const op of ["Softmax", "LogSoftmax"]) {
  test(`${op}: gradient over drawn shapes and axes`, () => {
    fc.assert(
      fc.property(shape, fc.nat(2), fc.boolean(), (dims, at, fromEnd) => {
        const axis = (at % dims.length) - (fromEnd ? dims.length : 0);
        checkGradient({
          inputs: { x: dims },
          build: ({ x }, builder) => builder.one(op, [x], { axis }),
          range: [-3, 3],
          second: true,
        });
      }),
      { numRuns: 20, seed: 3, includeErrorInReport: true },
    );
  });
}

test("LogSoftmax: gradient of picked elements, one or several a row, on each axis", () => {
  for (const axis of [0, 1, -1]) {
    const indices = tensorFrom("int64", [2, 2, 2], [0, 1, 1, 1, 0, 0, 1, 0]);
    checkGradient({
      inputs: { x: [2, 2, 2] },
      build: ({ x }, builder) =>
        gatherElements(logSoftmax(x as Value, axis), builder.constant(indices), axis),
      second: true,
    });
  }
});

test("LogSoftmax: elements picked from some rows only", () => {
  checkGradient({
    inputs: { x: [3, 4] },
    build: ({ x }, builder) =>
      gatherElements(
        logSoftmax(x as Value),
        builder.constant(tensorFrom("int64", [2, 1], [3, 1])),
        1,
      ),
    second: true,
  });
});

test("the gradient of a cross-entropy passes three times over the logits: exp, scale, minus one at the label", () => {
  const builder = newBuilder("lean");
  const logits = builder.input("logits", { dtype: "float32", shape: [64, 100] });
  const labels = builder.input("labels", { dtype: "int64", shape: [64] });
  const [gradient] = backward([crossEntropy(logits, labels)], [logits]);
  const graph = builder.build([gradient as Value]);
  const large = graph.nodes.filter(
    (node) => graph.types.get(node.outputs[0] as string)?.shape.join() === "64,100",
  );
  assert.deepEqual(
    large.map((node) => node.op),
    ["LogSoftmax", "Exp", "Mul", "ScatterElements"],
  );
});

/** Returns softmax(q · kᵀ) · v as nodes. */
function attend([q, k, v]: readonly Value[]): Value {
  return matmul(softmax(matmul(q as Value, k as Value, { transB: true })), v as Value);
}

test("Softmax between products, as in attention: gradient, with heads that share keys too", () => {
  for (const shapes of [
    [
      [2, 3, 2],
      [2, 4, 2],
      [2, 4, 3],
    ],
    [
      [2, 2, 3, 2],
      [2, 2, 4, 2],
      [2, 2, 4, 3],
    ],
    [
      [2, 2, 3, 2],
      [2, 1, 4, 2],
      [2, 1, 4, 3],
    ],
    [
      [3, 2],
      [4, 2],
      [4, 3],
    ],
  ]) {
    checkGradient({
      inputs: Object.fromEntries(shapes.map((dims, i) => [`x${i}`, dims])),
      build: (values) => attend(Object.values(values)),
      range: [-2, 2],
      second: true,
    });
  }
});

test("Softmax between products whose values are arranged in two ways: gradient", () => {
  checkGradient({
    inputs: { x: [2, 3, 4], w: [2, 12] },
    build: ({ x, w }) => {
      const p = softmax(x as Value);
      const flat = reshape(w as Value, [24]);
      const one = matmul(p, reshape(flat, [2, 4, 3]));
      const other = matmul(p, transpose(reshape(flat, [2, 3, 4]), [0, 2, 1]));
      return [one, other];
    },
    range: [-2, 2],
  });
});

test("the gradient of attention sums over the width of a head, not over the keys", () => {
  const builder = newBuilder("attention");
  const inputs = ["q", "k", "v"].map((name) =>
    builder.input(name, { dtype: "float32", shape: [2, 3, 64, 16] }),
  );
  const y = attend(inputs);
  const gradients = backward([y], inputs, [y]).filter((gradient) => gradient !== undefined);
  const graph = builder.build(gradients);
  const sums = graph.nodes.filter((node) => node.op === "ReduceSum");
  assert.deepEqual(
    sums.map((node) => graph.types.get(node.inputs[0] as string)?.shape),
    [[2, 3, 64, 16]],
  );
});
