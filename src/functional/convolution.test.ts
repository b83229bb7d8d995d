import assert from "node:assert/strict";
import { test } from "node:test";
import { newBuilder } from "../ops/index.ts";
import { averagePool, conv, convTranspose, einsum, maxPool } from "./index.ts";

test("Convolutions and pools take one number for all dims, or a list", () => {
  const b = newBuilder("convolution");
  const float = (...shape: number[]) => b.input(`x${shape.join("x")}`, { dtype: "float32", shape });
  const x = float(2, 4, 9, 8);
  const w = float(6, 2, 3, 3);
  const bias = float(6);
  assert.deepEqual(conv(x, w, bias, { pads: 1, group: 2 }).shape, [2, 6, 9, 8]);
  assert.deepEqual(conv(x, w, undefined, { strides: [2, 1], group: 2 }).shape, [2, 6, 4, 6]);
  assert.deepEqual(conv(x, w, bias, { pads: [2, 0, 0, 1], group: 2 }).shape, [2, 6, 9, 7]);
  const up = convTranspose(x, float(4, 5, 2, 2), undefined, { strides: 2, outputPadding: 1 });
  assert.deepEqual(up.shape, [2, 5, 19, 17]);
  assert.deepEqual(maxPool(x, 2).shape, [2, 4, 4, 4]);
  assert.deepEqual(averagePool(x, 3, { strides: 1, pads: 1 }).shape, [2, 4, 9, 8]);
  assert.deepEqual(einsum("ncij,ocij->no", x, float(3, 4, 9, 8)).shape, [2, 3]);
});
