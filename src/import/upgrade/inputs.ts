/** Attributes that became inputs: axes, split sizes, bounds, pads, slices. */
import { normalizeDim } from "../../tensor/index.ts";
import { type Rule, type RuleContext, type RuleTable, rewrite } from "./rule.ts";

const axesToInput: Rule = ({ node, ints, builder }) => {
  const axes = ints("axes");
  if (axes === undefined) return undefined;
  return rewrite(node, { inputs: [node.inputs[0], builder.ints(axes)], without: ["axes"] });
};

const splitSizes: Rule = (context) => {
  const { node, ints, int, input, builder } = context;
  const { shape } = input(0);
  const axis = normalizeDim(int("axis", 0), shape.length);
  if (axis === undefined) return context.fail(`axis ${int("axis", 0)} is out of range`);
  const given = ints("split") ?? (node.inputs[1] && context.numbers(1));
  const size = shape[axis] as number;
  const count = int("num_outputs", node.outputs.length);
  if (count < 1 || given?.some((own) => !Number.isSafeInteger(own)) === true) {
    return context.fail(`a split into ${given?.join(", ") ?? count} pieces`);
  }
  const chunk = Math.ceil(size / count);
  const sizes = given ?? Array.from({ length: count }, (_, i) => Math.min(chunk, size - i * chunk));
  return rewrite(node, {
    inputs: [node.inputs[0], builder.ints(sizes)],
    without: ["split", "num_outputs"],
  });
};

const clipBounds: Rule = ({ node, input, float, attribute, scalar }) => {
  const x = input(0);
  const bound = (name: string) =>
    attribute(name) === undefined ? undefined : scalar(x, float(name, 0));
  return rewrite(node, { inputs: [x, bound("min"), bound("max")], without: ["min", "max"] });
};

const padAttributes: Rule = ({ node, input, ints, float, builder, scalar }) =>
  rewrite(node, {
    inputs: [
      input(0),
      builder.ints(ints("pads") ?? ints("paddings") ?? []),
      scalar(input(0), float("value", 0)),
    ],
    without: ["pads", "paddings", "value"],
  });

/** Converts pads of chosen axes to pads of all axes. */
const padAxes: Rule = (context) => {
  const { node, input, builder } = context;
  if (node.inputs[3] === undefined) return undefined;
  const { length: rank } = input(0).shape;
  const pads = context.numbers(1);
  const axes = context.numbers(3);
  const all = new Array<number>(2 * rank).fill(0);
  for (const [i, axis] of axes.entries()) {
    const dim = normalizeDim(axis, rank) ?? context.fail(`axis ${axis} is out of range`);
    all[dim] = pads[i] ?? 0;
    all[rank + dim] = pads[axes.length + i] ?? 0;
  }
  return rewrite(node, { inputs: [input(0), builder.ints(all), node.inputs[2]] });
};

const sliceBounds: Rule = ({ node, input, ints, builder }) => {
  const starts = ints("starts") ?? [];
  const axes = ints("axes") ?? starts.map((_, dim) => dim);
  return rewrite(node, {
    inputs: [input(0), builder.ints(starts), builder.ints(ints("ends") ?? []), builder.ints(axes)],
    without: ["starts", "ends", "axes"],
  });
};

const topK: Rule = ({ node, input, int, attribute, builder }) =>
  attribute("k") === undefined
    ? undefined
    : rewrite(node, { inputs: [input(0), builder.ints([int("k", 1)])], without: ["k"] });

/** Before version 13, these operators worked on the input flattened to a matrix at `axis`. */
const flattenedSoftmax: Rule = ({ node, input, int, builder, one, fail }) => {
  const x = input(0);
  const rank = x.shape.length;
  const axis = normalizeDim(int("axis", 1), rank);
  if (axis === undefined) return fail(`axis ${int("axis", 1)} is out of range`);
  if (axis === rank - 1) return rewrite(node, { set: { axis: { kind: "int", value: axis } } });
  const flat = one("Reshape", [x, builder.ints([...x.shape.slice(0, axis), -1])]);
  return [one("Reshape", [one(node.op, [flat], { axis: -1 }), builder.ints(x.shape)])];
};

function reshapeAttribute({ node, input, ints, builder }: RuleContext) {
  return rewrite(node, {
    inputs: [input(0), builder.ints(ints("shape") ?? [])],
    without: ["shape"],
  });
}

const REDUCTIONS = ["Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"];

export const inputRules: RuleTable = {
  Squeeze: [{ below: 13, rule: axesToInput }],
  Unsqueeze: [{ below: 13, rule: axesToInput }],
  ReduceSum: [{ below: 13, rule: axesToInput }],
  ...Object.fromEntries(
    REDUCTIONS.map((name) => [`Reduce${name}`, [{ below: 18, rule: axesToInput }]]),
  ),
  Reshape: [{ below: 5, rule: reshapeAttribute }],
  Split: [{ rule: splitSizes }],
  Clip: [{ below: 11, rule: clipBounds }],
  Pad: [{ below: 11, rule: padAttributes }, { rule: padAxes }],
  Slice: [{ below: 10, rule: sliceBounds }],
  TopK: [{ below: 10, rule: topK }],
  Softmax: [{ below: 13, rule: flattenedSoftmax }],
  LogSoftmax: [{ below: 13, rule: flattenedSoftmax }],
};
