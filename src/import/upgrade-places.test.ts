/**
 * Signals, grids, regions and other operators that are composed of others, compared with ONNX
 * Runtime, which runs them unchanged.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeModel } from "../onnx/read.ts";
import { scalar, tensorFrom } from "../tensor/index.ts";
import { importGraph } from "./import.ts";
import { checkImport, type ImportCase, modelOf, node } from "./raw.testing.ts";

const ints = (...values: number[]) => tensorFrom("int64", [values.length], values);
const floats = (...values: number[]) => tensorFrom("float32", [values.length], values);
const int = (value: number) => scalar("int64", value);
const image = { x: [2, 3, 5, 6] };
const boxes = tensorFrom(
  "float32",
  [3, 4],
  [0.4, 0.7, 4.1, 3.2, -1, -1.5, 2.5, 2, 2.2, 1, 7.5, 6.1],
);
const regions = { boxes, pictures: ints(1, 0, 1) };

function made(
  op: string,
  opset: number,
  inputs: Record<string, number[]>,
  weights: NonNullable<ImportCase["weights"]>,
  attributes: Parameters<typeof node>[3] = {},
  order: readonly string[] = [...Object.keys(inputs), ...Object.keys(weights)],
): ImportCase {
  return { opset, inputs, weights, nodes: [node(op, order, ["y"], attributes)] };
}

const CASES: Readonly<Record<string, ImportCase>> = {
  "GridSample 16": made(
    "GridSample",
    16,
    { x: [2, 3, 4, 5], grid: [2, 3, 4, 2] },
    {},
    {
      mode: "bicubic",
      padding_mode: "reflection",
    },
  ),
  "GridSample 16 by default": made("GridSample", 16, { x: [2, 3, 4, 5], grid: [2, 3, 4, 2] }, {}),
  "GridSample 22 over three dims": made(
    "GridSample",
    22,
    { x: [1, 2, 3, 4, 3], grid: [1, 2, 3, 2, 3] },
    {},
    { padding_mode: "border", align_corners: 1 },
  ),
  "AffineGrid 20": made("AffineGrid", 20, { x: [2, 2, 3] }, { size: ints(2, 1, 3, 4) }),
  "AffineGrid 20, aligned, three dims": made(
    "AffineGrid",
    20,
    { x: [2, 3, 4] },
    { size: ints(2, 1, 3, 2, 4) },
    { align_corners: 1 },
  ),
  "RoiAlign 10": made("RoiAlign", 10, image, regions, { output_height: 2, output_width: 3 }),
  "RoiAlign 16, two samples": made("RoiAlign", 16, image, regions, {
    output_height: 2,
    output_width: 2,
    sampling_ratio: 2,
    spatial_scale: { float: 0.75 },
  }),
  "RoiAlign 16, regions of one element at least": made("RoiAlign", 16, image, regions, {
    coordinate_transformation_mode: "output_half_pixel",
    spatial_scale: { float: 0.25 },
  }),
  "Col2Im 18": made(
    "Col2Im",
    18,
    { x: [2, 12, 4] },
    { size: ints(5, 4), kernel: ints(2, 3) },
    { strides: [2, 1], dilations: [2, 1] },
  ),
  "DeformConv 19": made(
    "DeformConv",
    19,
    { x: [1, 2, 4, 4], w: [3, 2, 2, 2], offsets: [1, 8, 3, 3] },
    {},
  ),
  "CenterCropPad 18": made("CenterCropPad", 18, { x: [4, 7] }, { size: ints(7, 4) }),
  "CenterCropPad 18 of one axis": made(
    "CenterCropPad",
    18,
    { x: [4, 7] },
    { size: ints(9) },
    { axes: [-2] },
  ),
  "GlobalLpPool, 1": made("GlobalLpPool", 13, image, {}, { p: 1 }),
  "GlobalLpPool, 2": made("GlobalLpPool", 13, image, {}),
  "GlobalLpPool, 3": made("GlobalLpPool", 13, image, {}, { p: 3 }),
  MaxUnpool: {
    opset: 13,
    inputs: { x: [2, 3, 6, 6] },
    nodes: [
      node("MaxPool", ["x"], ["p", "i"], { kernel_shape: [2, 2], strides: [2, 2] }),
      node("MaxUnpool", ["p", "i"], ["y"], { kernel_shape: [2, 2], strides: [2, 2] }),
    ],
  },
  "Compress along an axis": made(
    "Compress",
    11,
    { x: [3, 4] },
    { holds: tensorFrom("bool", [3], [1, 0, 1]) },
    { axis: 1 },
  ),
  "Compress of all": made(
    "Compress",
    11,
    { x: [3, 2] },
    { holds: tensorFrom("bool", [6], [0, 1, 1, 0, 0, 1]) },
  ),
  "DFT 17": made("DFT", 17, { x: [2, 6, 3, 1] }, {}, { onesided: 1 }),
  "DFT 17, another axis and a length": made(
    "DFT",
    17,
    { x: [2, 5, 3, 2] },
    { length: int(4) },
    { axis: 2, inverse: 1 },
  ),
  "DFT 20 of the last dim but one": made("DFT", 20, { x: [2, 5, 2] }, { axis: int(1) }, {}, [
    "x",
    "",
    "axis",
  ]),
  "STFT 17 with a window": made(
    "STFT",
    17,
    { x: [2, 20, 1] },
    { step: int(3), window: floats(0.2, 0.7, 1, 0.9, 0.4, 0.1), length: int(6) },
  ),
  "STFT 17, all of the spectrum": made(
    "STFT",
    17,
    { x: [2, 20, 1] },
    { step: int(4), length: int(8) },
    { onesided: 0 },
    ["x", "step", "", "length"],
  ),
  ...Object.fromEntries(
    ["HannWindow", "HammingWindow", "BlackmanWindow"].flatMap((op) =>
      [0, 1].map((periodic) => [
        `${op}, periodic ${periodic}`,
        {
          opset: 17,
          inputs: { x: [7] },
          weights: { size: int(7) },
          nodes: [node(op, ["size"], ["w"], { periodic }), node("Mul", ["x", "w"], ["y"])],
        },
      ]),
    ),
  ),
  MelWeightMatrix: {
    opset: 17,
    inputs: { x: [33, 8] },
    weights: {
      bands: int(8),
      length: int(64),
      rate: int(16000),
      low: scalar("float32", 100),
      high: scalar("float32", 7000),
    },
    nodes: [
      node("MelWeightMatrix", ["bands", "length", "rate", "low", "high"], ["w"]),
      node("Mul", ["x", "w"], ["y"]),
    ],
  },
  Det: made("Det", 11, { x: [2, 4, 4] }, {}),
};

for (const [name, given] of Object.entries(CASES)) {
  test(`${name}: the imported graph computes the same`, () => checkImport(name, given));
}

test("an unknown mode is refused with node, operator and mode", () => {
  const cases: [ImportCase, RegExp][] = [
    [
      made("RoiAlign", 16, image, regions, { mode: "max" }),
      /node "y" \(RoiAlign\): mode "max" is not supported/,
    ],
    [
      made("GridSample", 16, { x: [1, 2, 3, 4], grid: [1, 2, 2, 2] }, {}, { mode: "lanczos" }),
      /node "y" \(GridSample\): .*mode "lanczos"/,
    ],
    [
      made("Resize", 18, image, { roi: floats(), scales: floats(1, 1, 2, 2) }, { mode: "area" }),
      /node "y" \(Resize\): .*mode "area"/,
    ],
  ];
  for (const [given, message] of cases) {
    const bytes = modelOf({ ...given, outputs: ["y"] });
    assert.throws(() => importGraph(decodeModel(bytes, { name: "t" })), {
      code: "ONNX_UNSUPPORTED",
      message,
    });
  }
});
