/** Operators that are written with others. They hold only where `ops/` has no definition of its own. */
import { normalizeDim } from "../../tensor/index.ts";
import { type Rule, type RuleEntry, type RuleTable, rewrite } from "./rule.ts";

const rename =
  (op: string): Rule =>
  ({ node }) =>
    rewrite(node, { op });

const sum: Rule = ({ node, input, one }) => {
  let total = input(0);
  for (let i = 1; i < node.inputs.length; i++) total = one("Add", [total, input(i)]);
  return [total];
};

const mean: Rule = (context) => {
  const [total] = sum(context) as ReturnType<typeof context.emit>;
  if (total === undefined) return undefined;
  return [context.one("Div", [total, context.scalar(total, context.node.inputs.length)])];
};

const reciprocal: Rule = ({ input, one, scalar }) => [one("Div", [scalar(input(0), 1), input(0)])];

const softsign: Rule = ({ input, one, scalar }) => {
  const x = input(0);
  return [one("Div", [x, one("Add", [scalar(x, 1), one("Abs", [x])])])];
};

const selu: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const gamma = scalar(x, float("gamma", 1.0507009873554805));
  return [one("Mul", [gamma, one("Elu", [x], { alpha: float("alpha", 1.6732632423543772) })])];
};

const celu: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const alpha = scalar(x, float("alpha", 1));
  return [one("Mul", [alpha, one("Elu", [one("Div", [x, alpha])], { alpha: 1 })])];
};

const mish: Rule = ({ input, one }) => {
  const x = input(0);
  return [one("Mul", [x, one("Tanh", [one("Softplus", [x])])])];
};

const swish: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const alpha = float("alpha", 1);
  const inner = alpha === 1 ? x : one("Mul", [x, scalar(x, alpha)]);
  return [one("Mul", [x, one("Sigmoid", [inner])])];
};

const quickGelu: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const inner = one("Mul", [x, scalar(x, float("alpha", 1.702))]);
  return [one("Mul", [x, one("Sigmoid", [inner])])];
};

const hardSigmoid: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const line = one("Add", [
    one("Mul", [x, scalar(x, float("alpha", 0.2))]),
    scalar(x, float("beta", 0.5)),
  ]);
  return [one("Clip", [line, scalar(x, 0), scalar(x, 1)])];
};

const hardSwish: Rule = ({ input, one, scalar }) => {
  const x = input(0);
  const line = one("Add", [one("Mul", [x, scalar(x, 1 / 6)]), scalar(x, 0.5)]);
  return [one("Mul", [x, one("Clip", [line, scalar(x, 0), scalar(x, 1)])])];
};

const thresholdedRelu: Rule = ({ input, one, scalar, float }) => {
  const x = input(0);
  const above = one("Greater", [x, scalar(x, float("alpha", 1))]);
  return [one("Where", [above, x, scalar(x, 0)])];
};

const prelu: Rule = ({ input, one, scalar }) => {
  const x = input(0);
  const negative = one("Less", [x, scalar(x, 0)]);
  return [one("Where", [negative, one("Mul", [x, input(1)]), x])];
};

const orEqual =
  (strict: "Less" | "Greater"): Rule =>
  ({ input, one }) => [one("Not", [one(strict, [input(0), input(1)])])];

/** A reduction between two element-wise operators. */
const around =
  (before: string | undefined, reduction: string, after: string | undefined): Rule =>
  ({ node, input, one, int }) => {
    const x = input(0);
    const inner = before === undefined ? x : one(before, before === "Mul" ? [x, x] : [x]);
    const reduced = one(reduction, [inner, node.inputs[1]], {
      keepdims: int("keepdims", 1),
      noop_with_empty_axes: int("noop_with_empty_axes", 0),
    });
    return [after === undefined ? reduced : one(after, [reduced])];
  };

const globalPool =
  (reduction: string): Rule =>
  ({ input, one, builder }) => {
    const axes = input(0)
      .shape.map((_, dim) => dim)
      .slice(2);
    return [one(reduction, [input(0), builder.ints(axes)], { keepdims: 1 })];
  };

const flatten: Rule = ({ input, int, one, builder }) => {
  const { shape } = input(0);
  const axis = int("axis", 1);
  const at = axis < 0 ? axis + shape.length : axis;
  const rows = shape.slice(0, at).reduce((product, size) => product * size, 1);
  const columns = shape.slice(at).reduce((product, size) => product * size, 1);
  return [one("Reshape", [input(0), builder.ints([rows, columns])])];
};

const squeeze: Rule = ({ node, input, numbers, one, builder }) => {
  const { shape } = input(0);
  const axes = node.inputs[1] === undefined ? undefined : numbers(1);
  const gone = new Set(
    axes?.map((axis) => normalizeDim(axis, shape.length)) ??
      shape.flatMap((size, dim) => (size === 1 ? [dim] : [])),
  );
  const left = shape.filter((_, dim) => !gone.has(dim));
  return [one("Reshape", [input(0), builder.ints(left)])];
};

const depthToSpace: Rule = ({ input, int, string, one, builder }) => {
  const [n = 0, c = 0, h = 0, w = 0] = input(0).shape;
  const b = int("blocksize", 1);
  const out = c / (b * b);
  const crd = string("mode", "DCR") === "CRD";
  const split = one("Reshape", [
    input(0),
    builder.ints(crd ? [n, out, b, b, h, w] : [n, b, b, out, h, w]),
  ]);
  const moved = one("Transpose", [split], { perm: crd ? [0, 1, 4, 2, 5, 3] : [0, 3, 4, 1, 5, 2] });
  return [one("Reshape", [moved, builder.ints([n, out, h * b, w * b])])];
};

const spaceToDepth: Rule = ({ input, int, one, builder }) => {
  const [n = 0, c = 0, h = 0, w = 0] = input(0).shape;
  const b = int("blocksize", 1);
  const split = one("Reshape", [input(0), builder.ints([n, c, h / b, b, w / b, b])]);
  const moved = one("Transpose", [split], { perm: [0, 3, 5, 1, 2, 4] });
  return [one("Reshape", [moved, builder.ints([n, c * b * b, h / b, w / b])])];
};

const biasGelu: Rule = ({ input, one }) => [one("Gelu", [one("Add", [input(0), input(1)])])];

const fastGelu: Rule = ({ node, input, one }) => {
  const x = node.inputs[1] === undefined ? input(0) : one("Add", [input(0), input(1)]);
  return [one("Gelu", [x], { approximate: "tanh" })];
};

/** LayerNormalization(x + skip [+ bias]); the statistics (outputs 1 and 2) are not given out. */
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

const only = (rule: Rule): readonly RuleEntry[] => [{ unlessDefined: true, rule }];

export const composeRules: RuleTable = {
  Sum: only(sum),
  Mean: only(mean),
  Reciprocal: only(reciprocal),
  Softsign: only(softsign),
  Selu: only(selu),
  Celu: only(celu),
  Mish: only(mish),
  Swish: only(swish),
  HardSigmoid: only(hardSigmoid),
  HardSwish: only(hardSwish),
  ThresholdedRelu: only(thresholdedRelu),
  PRelu: only(prelu),
  LessOrEqual: only(orEqual("Greater")),
  GreaterOrEqual: only(orEqual("Less")),
  ReduceSumSquare: only(around("Mul", "ReduceSum", undefined)),
  ReduceL1: only(around("Abs", "ReduceSum", undefined)),
  ReduceLogSum: only(around(undefined, "ReduceSum", "Log")),
  ReduceL2: only(around("Mul", "ReduceSum", "Sqrt")),
  GlobalMaxPool: only(globalPool("ReduceMax")),
  GlobalAveragePool: only(globalPool("ReduceMean")),
  Flatten: only(flatten),
  Squeeze: only(squeeze),
  DepthToSpace: only(depthToSpace),
  SpaceToDepth: only(spaceToDepth),
  "com.microsoft::Gelu": only(rename("Gelu")),
  "com.microsoft::BiasGelu": only(biasGelu),
  "com.microsoft::FastGelu": only(fastGelu),
  "com.microsoft::QuickGelu": only(quickGelu),
  "com.microsoft::SkipLayerNormalization": only(skipLayerNormalization),
};
