import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { formatInspection, inspectModel } from "./inspect.ts";

const fixture = (name: string) =>
  path.join(import.meta.dirname, `../../../test/onnx/fixtures/${name}.onnx`);

test("a model is described: operators, weights, cost, gradients", () => {
  const found = inspectModel(fixture("mlp-17"), { dims: { batch: 10 } });
  assert.deepEqual(found.opsets, { "ai.onnx": 17 });
  assert.deepEqual(found.inputs, [{ name: "x", dtype: "float32", shape: ["batch", 2, 3] }]);
  assert.equal(found.weights.elements, 6 * 12 + 12 + 12 * 12 + 12 + 12 * 3 + 3);
  assert.deepEqual(found.unknown, []);
  assert.equal(found.problem, undefined);
  const gemm = found.imported?.operators.find(({ name }) => name === "Gemm");
  assert.equal(gemm?.count, 3);
  // The products, and the addition of a bias.
  const products = 2 * 10 * (6 * 12 + 12 * 12 + 12 * 3);
  assert.ok(gemm.flops >= products && gemm.flops < products * 1.2, `${gemm.flops}`);
  assert.deepEqual(found.imported?.withoutGradient, []);
  const text = formatInspection(found);
  assert.match(text, /x: float32\[batch, 2, 3\]/);
  assert.match(text, /Every operator has a gradient/);
});

test("dims without a size count as one", () => {
  assert.equal(inspectModel(fixture("encoder-13")).problem, undefined);
});
