import {
  add,
  cast,
  gemm,
  mul,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type {
  Division,
  DivisionContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { byteLength, elementCount } from "../../tensor/index.ts";
import { alignedDim, along, exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import {
  axisOf,
  checkBroadcast,
  checkedFloat,
  dimsFrom,
  dimsFromAxis,
  normalizedRows,
  stashType,
  statisticsShape,
} from "./shared.ts";

/**
 * x / √(mean of squares + epsilon) · scale over the dims from `axis` on (Zhang & Sennrich 2019).
 */
export const rmsNormalization: OperatorDefinition = {
  name: "RMSNormalization",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    axis: { kind: "int", default: -1 },
    epsilon: { kind: "float", default: 1e-5 },
    stash_type: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const type = checkedFloat(context);
    checkBroadcast(context, 1, type.shape.slice(axisOf(context.attributes, type.shape)));
    return [type];
  },
  // With r = 1/√(mean x² + ε) and g = dy · scale: dx = r · (g − x · r² · mean(g · x)).
  gradient: (context) => {
    const { count, size, rows, vector, toScale } = normalizedRows(context);
    const [x, dy] = [rows(context.input(0)), rows(context.gradient(0))];
    const scale = vector(context.input(1));
    const square = reduceMean(mul(x, x), { axes: [1] });
    const inverse = reciprocal(sqrt(add(square, context.attributes.number("epsilon"))));
    const product = mul(dy, x);
    const dx = () => {
      const along = gemm(product, mul(reshape(scale, [size, 1]), 1 / size));
      const bend = mul(x, mul(along, mul(inverse, inverse)));
      return reshape(mul(sub(mul(dy, scale), bend), inverse), context.input(0).shape);
    };
    const dScale = () =>
      toScale(gemm(reshape(inverse, [1, count]), product), context.input(1).shape);
    return [context.needs(0) ? dx() : undefined, context.needs(1) ? dScale() : undefined];
  },
  flops: flopsPerElement(5),
  inPlace: false,
  batch: { mixes: dimsFromAxis },
  divisions: rmsDivisions,
};

/** Along the dims before those that are normalized; along these, sums of squares are exchanged. */
function rmsDivisions(context: DivisionContext): Division[] {
  const { dtype, shape } = context.input(0);
  const axis = axisOf(context.attributes, shape);
  const normalized = dimsFrom(axis, shape);
  const scale = context.input(1).shape;
  const exchanged = byteLength({ dtype: stashType(dtype), shape: statisticsShape(shape, axis) });
  const within = normalized.flatMap((dim) =>
    along(context, {
      inputs: [dim, alignedDim(scale, shape.length, dim, shape[dim] as number)],
      outputs: [dim],
      local: (rank) => [rmsPart(rank, normalized)],
    }),
  );
  return [
    ...exceptAlong(context, normalized),
    ...within.map((division) => ({ ...division, exchanged })),
  ];
}

/** A part of the elements over whose squares the mean is taken. */
function rmsPart(
  { input, attributes, allReduce, ranks }: LocalContext,
  axes: readonly number[],
): Value {
  const x = input(0);
  const wide = cast(x, stashType(x.dtype));
  const count = ranks * elementCount(axes.map((dim) => x.shape[dim] as number));
  const squares = allReduce(reduceSum(mul(wide, wide), { axes }), "sum");
  const inverse = reciprocal(sqrt(add(mul(squares, 1 / count), attributes.number("epsilon"))));
  return mul(cast(mul(wide, inverse), x.dtype), input(1));
}
