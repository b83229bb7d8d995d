/**
 * Random numbers of a file: drawn by the key of each sample in training, alike for all samples in
 * validation, and by the engine's own operator in the export.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { mse, onnx, toSymbolicBatch } from "../../src/import/index.ts";
import { modelOf, node } from "../../src/import/raw.testing.ts";
import type { Mode } from "../../src/nn/index.ts";
import { encodeModel } from "../../src/onnx/index.ts";
import { newBuilder } from "../../src/ops/index.ts";
import { interpret } from "../../src/reference/index.ts";
import { bindWeights, forwardGraph } from "../../src/run/forward.ts";
import { type Tensor, tensorFrom, toNumbers } from "../../src/tensor/index.ts";

const folder = mkdtempSync(path.join(tmpdir(), "lockstep-noise-"));
after(() => rmSync(folder, { recursive: true }));

/** Returns y = x · w + noise, where one node draws the noise. */
function model(op: string, attributes: Parameters<typeof node>[3] = {}, width = 500, fixed = 0) {
  const file = path.join(folder, `${op}-${Math.abs(width)}-${fixed}.onnx`);
  const inputs = op === "RandomNormal" || op === "RandomUniform" ? [] : ["h"];
  const bytes = modelOf({
    opset: 18,
    inputs: { x: [fixed || "batch", width] },
    outputs: ["y"],
    weights: { w: tensorFrom("float32", [width], new Array<number>(width).fill(0.25)) },
    nodes: [
      node("Mul", ["x", "w"], ["h"]),
      node(op, inputs, ["noise"], attributes),
      node("Add", ["h", "noise"], ["y"]),
    ],
  });
  writeFileSync(file, bytes);
  return onnx(file, { loss: mse({ prediction: "y", target: "t" }) });
}

/** Returns the output for samples with these keys. */
function run(definition: ReturnType<typeof model>, keys: readonly number[], mode: Mode, x = 1) {
  const batch = keys.length;
  const { graph, randomKey } = definition.build({ batch, mode });
  const feeds: Record<string, Tensor> = {};
  for (const name of graph.inputs) {
    const type = graph.types.get(name);
    assert.ok(type !== undefined);
    const count = type.shape.reduce((product, size) => product * size, 1);
    const value = name === "w" ? 0.25 : x;
    const numbers = name === randomKey ? keys : new Array<number>(count).fill(value);
    feeds[name] = tensorFrom(type.dtype, type.shape, numbers);
  }
  const y = toNumbers(interpret(graph, feeds)["y"] as Tensor);
  return keys.map((_, i) => y.slice((i * y.length) / batch, ((i + 1) * y.length) / batch));
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const variance = (values: readonly number[]) =>
  mean(values.map((value) => (value - mean(values)) ** 2));

test("a sample's noise depends on its key, and not on the samples beside it", () => {
  for (const op of ["RandomNormalLike", "RandomUniformLike", "Bernoulli"]) {
    const definition = model(op);
    const [a, b, c] = run(definition, [11, 22, 33], "train");
    assert.deepEqual(run(definition, [33], "train"), [c]);
    assert.deepEqual(run(definition, [22, 11], "train"), [b, a]);
    assert.notDeepEqual(a, b);
  }
});

test("noise has the mean and the spread that the file asks for", () => {
  const normal = run(
    model("RandomNormalLike", { mean: { float: 3 }, scale: { float: 0.5 } }, 4001),
    [5],
    "train",
  ).flat();
  assert.ok(Math.abs(mean(normal) - 3.25) < 0.03, `${mean(normal)}`);
  assert.ok(Math.abs(variance(normal) - 0.25) < 0.02, `${variance(normal)}`);
  const even = run(
    model("RandomUniformLike", { low: { float: -2 }, high: { float: 4 } }, 4002),
    [6],
    "train",
  ).flat();
  assert.ok(Math.min(...even) >= -1.75 && Math.max(...even) < 4.25);
  assert.ok(Math.abs(mean(even) - 1.25) < 0.12 && Math.abs(variance(even) - 3) < 0.15);
  const ones = run(model("Bernoulli", {}, 4003), [7], "train").flat();
  assert.ok(ones.every((value) => value === 0.25 || value === 1.25));
  assert.ok(Math.abs(mean(ones) - 0.5) < 0.03, `${mean(ones)}`);
});

test("in validation noise is the same for every sample, and needs no key", () => {
  const definition = model("RandomNormalLike");
  assert.equal(definition.build({ batch: 2, mode: "eval" }).randomKey, undefined);
  const [first, second] = run(definition, [8, 9], "eval");
  assert.deepEqual(first, second);
  assert.deepEqual(run(definition, [1], "eval"), [first]);
  assert.ok(variance(first ?? []) > 0.5);
});

test("a file of a fixed batch draws the same for a sample in any other batch", () => {
  const [open, fixed] = [model("RandomNormalLike"), model("RandomNormalLike", {}, 500, 2)];
  const wanted = run(open, [11, 22, 33], "train");
  assert.deepEqual(run(fixed, [11, 22, 33], "train"), wanted);
  assert.deepEqual(run(fixed, [11, 22], "train"), wanted.slice(0, 2));
  assert.deepEqual(run(fixed, [33], "train"), wanted.slice(2));
});

test("noise of a fixed shape is drawn for its batch, and refused for another", () => {
  const definition = model("RandomNormal", { shape: [3, 40] }, 40, 3);
  assert.equal(run(definition, [1, 2, 3], "train").length, 3);
  assert.throws(() => definition.build({ batch: 1, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /RandomNormal/,
  });
  const alone = model("RandomNormal", { shape: [1, 40] }, 40);
  assert.throws(() => alone.build({ batch: 4, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /RandomNormal.*noise of shape \[1, 40\] does not belong to single samples/s,
  });
});

test("the exported file keeps the operator for any batch, and draws other noise each time", async () => {
  const definition = model("RandomNormalLike");
  const weights = { w: tensorFrom("float32", [500], new Array<number>(500).fill(0.25)) };
  const symbolic = toSymbolicBatch((batch) =>
    bindWeights(forwardGraph(definition.build({ batch, mode: "eval", exported: true })), weights),
  );
  assert.equal(symbolic.fixed, undefined);
  const session = await ort.InferenceSession.create(encodeModel(symbolic.graph, symbolic.encode));
  const x = new ort.Tensor("float32", new Float32Array(1000), [2, 500]);
  const [first, second] = [await session.run({ x }), await session.run({ x })];
  assert.deepEqual(first["y"]?.dims, [2, 500]);
  assert.notDeepEqual(first["y"]?.data, second["y"]?.data);
});

test("noise beside operators of a later operator set is refused before training", () => {
  const b = newBuilder("both");
  const x = b.input("x", { dtype: "float32", shape: [2, 4] });
  const noisy = b.one("Add", [x, b.one("RandomNormalLike", [x])]);
  const scale = b.constant(tensorFrom("float32", [4], [1, 1, 1, 1]));
  const graph = b.build([b.one("RMSNormalization", [noisy, scale])]);
  assert.throws(() => encodeModel(graph), {
    code: "ONNX_UNSUPPORTED",
    message: /RandomNormalLike/,
  });
});
