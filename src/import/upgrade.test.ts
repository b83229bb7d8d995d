/**
 * Old and composed forms of operators: each small model runs unchanged in ONNX Runtime, and
 * imported in Lockstep.
 */
import { test } from "node:test";
import { scalar, type Tensor, tensorFrom } from "../tensor/index.ts";
import {
  checkImport,
  graphOf,
  type ImportCase,
  type ModelParts,
  node,
  someNumbers,
} from "./raw.testing.ts";

const floats = (...values: number[]) => tensorFrom("float32", [values.length], values);
const ints = (...values: number[]) => tensorFrom("int64", [values.length], values);
const x34 = { x: [3, 4] };
const image = { x: [2, 4, 6, 6] };
const one = (
  op: string,
  opset: number,
  attributes = {},
  inputs: ModelParts["inputs"] = x34,
): ImportCase => ({
  opset,
  inputs: inputs ?? x34,
  nodes: [node(op, Object.keys(inputs ?? x34), ["y"], attributes)],
});
const withWeights = (
  op: string,
  opset: number,
  weights: Record<string, Tensor>,
  attributes = {},
  inputs: ModelParts["inputs"] = x34,
): ImportCase => ({
  opset,
  inputs: inputs ?? x34,
  weights,
  nodes: [node(op, ["x", ...Object.keys(weights)], ["y"], attributes)],
});
const statistics = {
  scale: floats(1, 2, 0.5, -1),
  bias: floats(0, 1, 2, 3),
  mean: floats(0.1, 0.2, 0.3, 0.4),
  variance: floats(1, 2, 3, 4),
};
const microsoft = (made: ImportCase): ImportCase => ({ ...made, domains: ["com.microsoft"] });

const CASES: Readonly<Record<string, ImportCase>> = {
  "Squeeze 11": one("Squeeze", 11, { axes: [1] }, { x: [3, 1, 4] }),
  "Squeeze 13 without axes": one("Squeeze", 13, {}, { x: [3, 1, 4, 1] }),
  "Unsqueeze 11": one("Unsqueeze", 11, { axes: [0, 2] }),
  "Unsqueeze 13": withWeights("Unsqueeze", 13, { axes: ints(-1) }),
  "ReduceMean 13": one("ReduceMean", 13, { axes: [1], keepdims: 0 }),
  "ReduceMean 18": withWeights("ReduceMean", 18, { axes: ints(0) }),
  "ReduceSum 11": one("ReduceSum", 11, { axes: [-1] }),
  "ReduceSum 13 over nothing": withWeights(
    "ReduceSum",
    13,
    { axes: ints() },
    { noop_with_empty_axes: 1 },
  ),
  "ReduceMax 12 of all": one("ReduceMax", 12),
  "ReduceL1 13": one("ReduceL1", 13, { axes: [0] }),
  "ReduceL2 18": withWeights("ReduceL2", 18, { axes: ints(1) }),
  "ReduceSumSquare 13": one("ReduceSumSquare", 13, { axes: [0], keepdims: 0 }),
  "ReduceLogSumExp 13": one("ReduceLogSumExp", 13, { axes: [1] }),
  "Split 11": {
    ...one("Split", 11),
    nodes: [node("Split", ["x"], ["y", "z"], { axis: 1, split: [1, 3] })],
    outputs: ["y", "z"],
  },
  "Split 13 in equal parts": {
    ...one("Split", 13),
    nodes: [node("Split", ["x"], ["y", "z"], { axis: 1 })],
    outputs: ["y", "z"],
  },
  "Split 18 in unequal parts": {
    ...one("Split", 18, {}, { x: [3, 5] }),
    nodes: [node("Split", ["x"], ["y", "z"], { axis: -1, num_outputs: 2 })],
    outputs: ["y", "z"],
  },
  "Clip 7": one("Clip", 7, { min: { float: -0.5 }, max: { float: 0.7 } }),
  "Clip 13 from above": {
    ...one("Clip", 13),
    weights: { max: scalar("float32", 0.3) },
    nodes: [node("Clip", ["x", "", "max"], ["y"])],
  },
  "Pad 9": one("Pad", 9, { pads: [0, 1, 2, 0], value: { float: 3 } }),
  "Pad 13": withWeights("Pad", 13, { pads: ints(1, 0, 0, 2), value: scalar("float32", 9) }),
  "Pad 18 of one axis": withWeights("Pad", 18, {
    pads: ints(1, 2),
    value: scalar("float32", 9),
    axes: ints(-1),
  }),
  "Slice 9": one("Slice", 9, { starts: [1, 0], ends: [3, -1], axes: [0, 1] }),
  "Slice 9 to the end": one("Slice", 9, { starts: [1], ends: [2 ** 63], axes: [1] }),
  "Slice to the end, folded": {
    opset: 13,
    inputs: x34,
    weights: { start: ints(1), end: scalar("int64", 2 ** 63), axes: ints(0) },
    nodes: [
      node("Unsqueeze", ["end", "axes"], ["ends"]),
      node("Slice", ["x", "start", "ends", "axes"], ["y"]),
    ],
  },
  "Slice 13 backwards": withWeights("Slice", 13, {
    starts: ints(-1),
    ends: ints(-(2 ** 63)),
    axes: ints(1),
    steps: ints(-2),
  }),
  "Softmax 11 over two dims": one("Softmax", 11, { axis: 1 }, { x: [2, 3, 4] }),
  "LogSoftmax 11": one("LogSoftmax", 11, { axis: -1 }),
  "Softmax 13": one("Softmax", 13, { axis: 0 }),
  "Dropout 10": one("Dropout", 10, { ratio: { float: 0.3 } }),
  "Dropout 13": withWeights("Dropout", 13, { ratio: scalar("float32", 0.9) }),
  "Resize from Upsample 9": withWeights(
    "Upsample",
    9,
    { scales: floats(1, 1, 2, 2) },
    { mode: "nearest" },
    image,
  ),
  "Resize 10 linear": withWeights(
    "Resize",
    10,
    { scales: floats(1, 1, 2, 2) },
    { mode: "linear" },
    image,
  ),
  "Resize 13": {
    opset: 13,
    inputs: image,
    weights: { roi: floats(), scales: floats(1, 1, 2, 3) },
    nodes: [
      node("Resize", ["x", "roi", "scales"], ["y"], {
        mode: "linear",
        coordinate_transformation_mode: "half_pixel",
      }),
    ],
  },
  "Resize 18 with axes": {
    opset: 18,
    inputs: image,
    weights: { sizes: ints(12, 12) },
    nodes: [
      node("Resize", ["x", "", "", "sizes"], ["y"], {
        axes: [2, 3],
        mode: "nearest",
        coordinate_transformation_mode: "asymmetric",
        nearest_mode: "floor",
      }),
    ],
  },
  "BatchNormalization 9": withWeights("BatchNormalization", 9, statistics, {}, image),
  "BatchNormalization 15": withWeights(
    "BatchNormalization",
    15,
    statistics,
    { epsilon: { float: 0.01 } },
    image,
  ),
  "GroupNormalization 21": withWeights(
    "GroupNormalization",
    21,
    { scale: floats(1, 2, 3, 4), bias: floats(0, 1, 0, -1) },
    { num_groups: 2 },
    image,
  ),
  "GroupNormalization 18": withWeights(
    "GroupNormalization",
    18,
    { scale: floats(1, 2), bias: floats(0, 1) },
    { num_groups: 2 },
    image,
  ),
  "InstanceNormalization 9": withWeights(
    "InstanceNormalization",
    9,
    { scale: floats(1, 2, 3, 4), bias: floats(0, 1, 0, -1) },
    {},
    image,
  ),
  "LayerNormalization 17": withWeights("LayerNormalization", 17, { scale: floats(1, 2, 3, 4) }),
  "Scatter 9": withWeights("Scatter", 9, {
    indices: tensorFrom("int64", [1, 2], [1, 2]),
    updates: tensorFrom("float32", [1, 2], [7, 8]),
  }),
  "Gemm 9": withWeights(
    "Gemm",
    9,
    { w: someNumbers([4, 2]), b: floats(1, 2) },
    { alpha: { float: 0.5 } },
  ),
  "Conv SAME_UPPER": withWeights(
    "Conv",
    11,
    { w: someNumbers([3, 4, 2, 3]) },
    { auto_pad: "SAME_UPPER", strides: [2, 1] },
    image,
  ),
  "Conv SAME_LOWER": withWeights(
    "Conv",
    11,
    { w: someNumbers([3, 4, 2, 2]) },
    { auto_pad: "SAME_LOWER" },
    image,
  ),
  "Conv VALID": withWeights(
    "Conv",
    11,
    { w: someNumbers([3, 4, 3, 3]) },
    { auto_pad: "VALID" },
    image,
  ),
  "MaxPool SAME_UPPER": one(
    "MaxPool",
    12,
    { kernel_shape: [3, 3], strides: [2, 2], auto_pad: "SAME_UPPER" },
    image,
  ),
  "AveragePool 11": one("AveragePool", 11, { kernel_shape: [2, 2], strides: [2, 2] }, image),
  GlobalAveragePool: one("GlobalAveragePool", 13, {}, image),
  GlobalMaxPool: one("GlobalMaxPool", 13, {}, image),
  CastLike: {
    ...one("CastLike", 15),
    weights: { like: scalar("int32", 0) },
    nodes: [node("CastLike", ["x", "like"], ["i"]), node("Cast", ["i"], ["y"], { to: 1 })],
  },
  "Shape 15 and its arithmetic": {
    opset: 15,
    inputs: { x: [2, 3, 4] },
    weights: { two: ints(2), axes: ints(0) },
    nodes: [
      node("Shape", ["x"], ["s"], { start: 1 }),
      node("ReduceProd", ["s"], ["p"], { keepdims: 1 }),
      node("Concat", ["two", "p"], ["dims"], { axis: 0 }),
      node("Reshape", ["x", "dims"], ["y"]),
    ],
  },
  "ConstantOfShape, Range and masks": {
    opset: 14,
    inputs: x34,
    weights: {
      zero: scalar("int64", 0),
      four: scalar("int64", 4),
      one: scalar("int64", 1),
      dims: ints(3, 4),
      two: scalar("int64", 2),
    },
    nodes: [
      node("Range", ["zero", "four", "one"], ["at"]),
      node("Less", ["at", "two"], ["mask"]),
      node("ConstantOfShape", ["dims"], ["fill"], { value: floats(7) }),
      node("Where", ["mask", "x", "fill"], ["y"]),
    ],
  },
  "EyeLike and MatMul": {
    opset: 13,
    inputs: { x: [3, 3] },
    nodes: [node("EyeLike", ["x"], ["i"], { k: 1 }), node("MatMul", ["x", "i"], ["y"])],
  },
  "Swish 24": one("Swish", 24, { alpha: { float: 1.5 } }),
  LpNormalization: one("LpNormalization", 13, { p: 1, axis: 0 }),
  MeanVarianceNormalization: one("MeanVarianceNormalization", 13, {}, image),
  SimplifiedLayerNormalization: withWeights("SimplifiedLayerNormalization", 13, {
    scale: floats(1, 2, 3, 4),
  }),
  "com.microsoft FusedMatMul": microsoft({
    opset: 17,
    inputs: { x: [2, 4, 3], z: [2, 5, 4] },
    nodes: [
      node("com.microsoft::FusedMatMul", ["x", "z"], ["y"], {
        transA: 1,
        transB: 1,
        alpha: { float: 0.5 },
      }),
    ],
  }),
  SoftmaxCrossEntropyLoss: withWeights(
    "SoftmaxCrossEntropyLoss",
    13,
    { labels: tensorFrom("int64", [3, 2], [0, 3, 1, 2, 2, 2]) },
    { ignore_index: 2 },
    { x: [3, 4, 2] },
  ),
  "Reshape with allowzero": withWeights("Reshape", 14, { dims: ints(4, 3) }, { allowzero: 1 }),
  Trilu: one("Trilu", 14, { upper: 0 }, { x: [4, 4] }),
  Sum: {
    opset: 13,
    inputs: { x: [3, 4], z: [4] },
    nodes: [node("Sum", ["x", "z", "x"], ["y"])],
  },
  Mean: { opset: 13, inputs: { x: [3, 4], z: [4] }, nodes: [node("Mean", ["x", "z"], ["y"])] },
  Reciprocal: one("Reciprocal", 13),
  Softsign: one("Softsign", 13),
  Selu: one("Selu", 13),
  Celu: one("Celu", 13, { alpha: { float: 1.5 } }),
  Mish: one("Mish", 18),
  HardSigmoid: one("HardSigmoid", 13, { alpha: { float: 0.3 } }),
  HardSwish: one("HardSwish", 14),
  ThresholdedRelu: one("ThresholdedRelu", 13, { alpha: { float: 0.4 } }),
  PRelu: withWeights("PRelu", 13, { slope: floats(0.1, 0.2, 0.3, 0.4) }),
  "LessOrEqual and Cast": {
    opset: 16,
    inputs: { x: [3, 4], z: [4] },
    nodes: [node("LessOrEqual", ["x", "z"], ["c"]), node("Cast", ["c"], ["y"], { to: 1 })],
  },
  "Gelu 20": one("Gelu", 20, { approximate: "tanh" }),
  "Flatten from the end": one("Flatten", 13, { axis: -1 }, { x: [2, 3, 4] }),
  "Reshape with 0 and -1": withWeights("Reshape", 14, { dims: ints(0, -1) }, {}, { x: [2, 3, 4] }),
  "Expand to a smaller shape": withWeights("Expand", 13, { dims: ints(1, 1) }),
  "DepthToSpace CRD": one("DepthToSpace", 13, { blocksize: 2, mode: "CRD" }, image),
  SpaceToDepth: one("SpaceToDepth", 13, { blocksize: 2 }, image),
  "Gather from the end": withWeights("Gather", 13, { at: ints(-1, 0) }, { axis: 1 }),
  "com.microsoft Gelu": microsoft(one("com.microsoft::Gelu", 17)),
  "com.microsoft QuickGelu": microsoft(one("com.microsoft::QuickGelu", 17)),
  "com.microsoft FastGelu": microsoft(
    withWeights("com.microsoft::FastGelu", 17, { b: floats(1, 2, 3, 4) }),
  ),
  "com.microsoft BiasGelu": microsoft(
    withWeights("com.microsoft::BiasGelu", 17, { b: floats(1, 2, 3, 4) }),
  ),
  "com.microsoft SkipLayerNormalization": microsoft({
    opset: 17,
    inputs: { x: [2, 3, 4], z: [2, 3, 4] },
    weights: { gamma: floats(1, 2, 3, 4), beta: floats(0, 1, 0, 1) },
    nodes: [node("com.microsoft::SkipLayerNormalization", ["x", "z", "gamma", "beta"], ["y"])],
  }),
  "If of a known condition": {
    opset: 16,
    inputs: x34,
    weights: { rank: scalar("int64", 2), two: floats(2) },
    nodes: [
      node("Shape", ["x"], ["s"]),
      node("Size", ["s"], ["n"]),
      node("Equal", ["n", "rank"], ["c"]),
      node("If", ["c"], ["y"], {
        then_branch: graphOf({ outputs: ["a"], nodes: [node("Mul", ["x", "two"], ["a"])] }),
        else_branch: graphOf({ outputs: ["b"], nodes: [node("Identity", ["x"], ["b"])] }),
      }),
    ],
  },
};

for (const [name, made] of Object.entries(CASES)) {
  test(`${name}: the imported graph computes the same`, () => checkImport(name, made));
}
