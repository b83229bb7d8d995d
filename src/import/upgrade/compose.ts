/**
 * Composes operators of others. These rules apply only if `ops/` has no definition of the operator.
 */
import { crossEntropy, roiAlign } from "../../functional/index.ts";
import { type Rule, type RuleEntry, type RuleTable, rewrite } from "./rule.ts";

const rename =
  (op: string): Rule =>
  ({ node }) =>
    rewrite(node, { op });

const swish: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const alpha = float("alpha", 1);
  const inner = alpha === 1 ? x : one("Mul", [x, scalar(x, alpha)]);
  return [one("Mul", [x, one("Sigmoid", [inner])])];
};

/** x / ‖x‖ along one axis, with the sum of absolute values or the Euclidean norm. */
const lpNormalization: Rule = ({ input, int, one, builder }) => {
  const axes = builder.ints([int("axis", -1)]);
  const norm = one(int("p", 2) === 1 ? "ReduceL1" : "ReduceL2", [input(0), axes], { keepdims: 1 });
  return [one("Div", [input(0), norm])];
};

/** (x − mean) / deviation over some axes. */
const meanVarianceNormalization: Rule = ({ input, ints, one, builder }) => {
  const x = input(0);
  const axes = builder.ints(ints("axes") ?? [0, 2, 3]);
  const centered = one("Sub", [x, one("ReduceMean", [x, axes], { keepdims: 1 })]);
  const variance = one("ReduceMean", [one("Mul", [centered, centered]), axes], { keepdims: 1 });
  return [one("Div", [centered, one("Sqrt", [variance])])];
};

/** LayerNormalization(x + skip [+ bias]); the statistics (outputs 1 and 2) are not provided. */
const skipLayerNormalization: Rule = ({ node, input, one, float, fail }) => {
  if (node.outputs.slice(1, 3).some((name) => name !== "")) fail("its statistics as outputs");
  let x = one("Add", [input(0), input(1)]);
  if (node.inputs[4] !== undefined) x = one("Add", [x, input(4)]);
  const y = one("LayerNormalization", [x, input(2), node.inputs[3]], {
    axis: -1,
    epsilon: float("epsilon", 1e-12),
  });
  return [y, undefined, undefined, x];
};

/** The form of RMS normalization that ONNX Runtime's optimizer writes. */
const simplifiedLayerNormalization: Rule = ({ node, input, one, int, float, fail }) => {
  if (node.outputs.slice(1).some((name) => name !== "")) fail("its statistics as outputs");
  const settings = { axis: int("axis", -1), epsilon: float("epsilon", 1e-5) };
  return [one("RMSNormalization", [input(0), input(1)], settings)];
};

/** The loss of models that contain it: classes are in dim 1. */
const softmaxCrossEntropy: Rule = ({ node, input, int, string, fail }) => {
  if (node.inputs[2] !== undefined) fail("weights of classes");
  if ((node.outputs[1] ?? "") !== "") fail("log-probabilities as its second output");
  const reduction = string("reduction", "mean");
  if (reduction !== "mean" && reduction !== "sum") return fail(`the reduction "${reduction}"`);
  const ignored = node.attributes["ignore_index"] && { ignoreIndex: int("ignore_index", 0) };
  return [crossEntropy(input(0), input(1), { axis: 1, reduction, ...ignored })];
};

/**
 * ONNX Runtime has no kernel for its newest form. Before version 16, coordinates referred to
 * centres.
 */
const regions: Rule = ({ node, input, int, float, string, fail }) => {
  const mode = string("mode", "avg");
  if (mode !== "avg") return fail(`mode "${mode}" is not supported`, 'Only "avg" is supported.');
  const edges = node.opset >= 16 ? "half_pixel" : "output_half_pixel";
  const settings = {
    height: int("output_height", 1),
    width: int("output_width", 1),
    samples: int("sampling_ratio", 0),
    scale: float("spatial_scale", 1),
    halfPixel: string("coordinate_transformation_mode", edges) === "half_pixel",
  };
  const [x, boxes, pictures] = [input(0), input(1), input(2)];
  const fits = pictures.shape.length === 1 && boxes.shape[0] === pictures.shape[0];
  if (x.shape.length !== 4 || boxes.shape.length !== 2 || boxes.shape[1] !== 4 || !fits) {
    return fail("it takes (N, C, H, W), regions (R, 4) and numbers of pictures (R)");
  }
  return [roiAlign(x, boxes, pictures, settings)];
};

const only = (rule: Rule): readonly RuleEntry[] => [{ unlessDefined: true, rule }];

export const composeRules: RuleTable = {
  Swish: only(swish),
  LpNormalization: only(lpNormalization),
  MeanVarianceNormalization: only(meanVarianceNormalization),
  SimplifiedLayerNormalization: only(simplifiedLayerNormalization),
  RoiAlign: only(regions),
  SoftmaxCrossEntropyLoss: only(softmaxCrossEntropy),
  "com.microsoft::Gelu": only(rename("Gelu")),
  "com.microsoft::SkipLayerNormalization": only(skipLayerNormalization),
};
