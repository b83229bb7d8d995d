/** The errors that a user reads when shapes do not fit. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { backward } from "../autodiff/index.ts";
import type { AttributeInputs } from "../graph/index.ts";
import type { Shape } from "../tensor/index.ts";
import { newBuilder } from "./index.ts";

const CASES: readonly [string, readonly Shape[], AttributeInputs, RegExp][] = [
  [
    "Conv",
    [
      [1, 3, 5],
      [4, 2, 3],
    ],
    {},
    /has 3 channels, the kernel expects 2 in 1 groups/,
  ],
  [
    "Conv",
    [
      [1, 3, 5],
      [4, 1, 3],
    ],
    { group: 3 },
    /4 output channels do not divide into 3 groups/,
  ],
  [
    "Conv",
    [
      [1, 3, 2],
      [4, 3, 3],
    ],
    {},
    /the kernel is larger than the input/,
  ],
  ["Conv", [[1, 3, 5], [4, 3, 3], [3]], {}, /the bias must have 4 elements/],
  [
    "ConvTranspose",
    [
      [1, 3, 5],
      [2, 4, 3],
    ],
    {},
    /has 3 channels, the kernel expects 2/,
  ],
  ["MaxPool", [[1, 3, 5]], { kernel_shape: [2, 2] }, /a kernel size for each spatial dim/],
  ["AveragePool", [[1, 3, 5]], { kernel_shape: [6] }, /the window is larger than the input/],
  [
    "MatMul",
    [
      [2, 3],
      [4, 5],
    ],
    {},
    /the inner sizes 3 and 4 differ/,
  ],
  ["Gemm", [[2, 3], [3, 5], [4]], {}, /C does not broadcast to \[2, 5\]/],
  ["LayerNormalization", [[2, 3], [4]], {}, /input 1 does not broadcast to \[3\]/],
  ["GroupNormalization", [[2, 3, 4], [3], [3]], { num_groups: 2 }, /3 channels do not divide/],
  ["Softmax", [[2, 3]], { axis: 2 }, /axis 2 is out of range for 2 dims/],
  [
    "Attention",
    [
      [1, 3, 4, 2],
      [1, 2, 4, 2],
      [1, 2, 4, 2],
    ],
    {},
    /3 heads of Q are not a multiple of 2/,
  ],
];

for (const [op, shapes, attributes, message] of CASES) {
  test(`${op} says: ${message.source}`, () => {
    const b = newBuilder("errors");
    const inputs = shapes.map((shape, i) => b.input(`x${i}`, { dtype: "float32", shape }));
    assert.throws(() => b.within("blocks.3", () => b.one(op, inputs, attributes)), {
      code: "SHAPE_MISMATCH",
      message: new RegExp(`blocks\\.3.*${message.source}`, "s"),
    });
  });
}

test("the error says that class weights and tables of angles have no gradient", () => {
  const b = newBuilder("errors");
  const x = b.input("x", { dtype: "float32", shape: [2, 4] });
  const labels = b.input("labels", { dtype: "int64", shape: [2] });
  const weights = b.input("weights", { dtype: "float32", shape: [4] });
  const loss = b.one("SoftmaxCrossEntropyLoss", [x, labels, weights]);
  assert.throws(() => backward([loss], [weights]), {
    code: "NO_GRADIENT",
    message: /for its class weights/,
  });
});

test("an unknown mode is refused by name, and not as a mismatch of shapes", () => {
  const b = newBuilder("errors");
  const x = b.input("x", { dtype: "float32", shape: [1, 3, 5] });
  const sizes = b.ints([1, 3, 4]);
  const cases: [AttributeInputs, RegExp][] = [
    [{ mode: "area" }, /Resize is not supported with mode "area"/],
    [{ antialias: 1 }, /Resize is not supported with antialias with mode "nearest"/],
  ];
  for (const [attributes, message] of cases) {
    assert.throws(() => b.one("Resize", [x, undefined, undefined, sizes], attributes), {
      code: "ONNX_UNSUPPORTED",
      message,
    });
  }
});
