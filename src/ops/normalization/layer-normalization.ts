import {
  add,
  cast,
  expand,
  gemm,
  mul,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
  sumTo,
} from "../../functional/index.ts";
import type {
  Division,
  DivisionContext,
  GradientContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { byteLength, elementCount, type Shape } from "../../tensor/index.ts";
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
  statistic,
  statisticsShape,
} from "./shared.ts";

/**
 * (x − mean) / √(variance + epsilon) · scale + bias over the dims from `axis` on (Ba et al. 2016).
 * Outputs 1 and 2 are the mean and the inverse deviation.
 */
export const layerNormalization: OperatorDefinition = {
  name: "LayerNormalization",
  inputs: [2, 3],
  outputs: [1, 3],
  attributes: {
    axis: { kind: "int", default: -1 },
    epsilon: { kind: "float", default: 1e-5 },
    stash_type: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const type = checkedFloat(context);
    const axis = axisOf(context.attributes, type.shape);
    checkBroadcast(context, 1, type.shape.slice(axis));
    checkBroadcast(context, 2, type.shape.slice(axis));
    const statistics = {
      dtype: stashType(type.dtype),
      shape: statisticsShape(type.shape, axis),
    };
    return [type, statistics, statistics];
  },
  // With rows x of n elements, c = x − mean, r = inverse deviation and g = dy · scale:
  //   dx = r · (g − mean(g) − c · r² · mean(g · c)).
  // Through the statistics come −c · r³ · dr / n and dmean / n. Products with a vector take
  // weighted means and sums.
  gradient: (context) => {
    const x = context.input(0);
    const { count, size, rows, vector, toScale } = normalizedRows(context);
    const [dy, dMean, dInverse] = context.gradients.map((g) => g && cast(g, x.dtype));
    const { centered, inverse } = statistics(context, rows(x));
    const scale = vector(context.input(1));
    const product = dy && mul(rows(dy), centered);
    const share = mul(reshape(scale, [size, 1]), 1 / size);
    let slope = dInverse && mul(reshape(dInverse, [count, 1]), 1 / size);
    if (product !== undefined) {
      const along = gemm(product, share);
      slope = slope === undefined ? along : add(along, slope);
    }
    const dx = () => {
      const bend = slope && mul(centered, mul(slope, mul(inverse, inverse)));
      const g = dy && mul(rows(dy), scale);
      const own = g && sub(g, reduceMean(g, { axes: [1] }));
      const inner = own === undefined || bend === undefined ? own : sub(own, bend);
      const scaled =
        inner === undefined ? bend && mul(bend, mul(inverse, -1)) : mul(inner, inverse);
      if (dMean === undefined) return scaled && reshape(scaled, x.shape);
      const shift = mul(reshape(dMean, [count, 1]), 1 / size);
      const all = scaled === undefined ? expand(shift, [count, size]) : add(scaled, shift);
      return reshape(all, x.shape);
    };
    const dScale = (of: Shape) =>
      product && toScale(gemm(reshape(inverse, [1, count]), product), of);
    return [
      context.needs(0) ? dx() : undefined,
      context.needs(1) ? dScale(context.input(1).shape) : undefined,
      dy && context.needs(2) ? sumTo(dy, context.input(2).shape) : undefined,
    ];
  },
  flops: flopsPerElement(8),
  inPlace: false,
  within: "axis",
  batch: { mixes: dimsFromAxis },
  divisions: layerDivisions,
};

/** Along the dims before those that are normalized; along these, sums are exchanged. */
function layerDivisions(context: DivisionContext): Division[] {
  const { dtype, shape } = context.input(0);
  const axis = axisOf(context.attributes, shape);
  const normalized = dimsFrom(axis, shape);
  // Of the mean and of the variance.
  const exchanged =
    2 * byteLength({ dtype: stashType(dtype), shape: statisticsShape(shape, axis) });
  const within = normalized.flatMap((dim) =>
    along(context, {
      inputs: [
        dim,
        ...context.inputs
          .slice(1)
          .map((type) => alignedDim(type?.shape, shape.length, dim, shape[dim] as number)),
      ],
      outputs: context.outputs.map((_, index) => (index === 0 ? dim : undefined)),
      local: (rank) => layerPart(rank, normalized),
    }),
  );
  return [
    ...exceptAlong(context, normalized),
    ...within.map((division) => ({ ...division, exchanged })),
  ];
}

/** A part of the elements over which the statistics are taken. */
function layerPart(
  { input, inputs, attributes, allReduce, ranks }: LocalContext,
  axes: readonly number[],
): readonly Value[] {
  const { dtype } = input(0);
  const x = cast(input(0), stashType(dtype));
  const count = ranks * elementCount(axes.map((dim) => x.shape[dim] as number));
  const meanOf = (value: Value) => mul(allReduce(reduceSum(value, { axes }), "sum"), 1 / count);
  const mean = meanOf(x);
  const centered = sub(x, mean);
  const variance = meanOf(mul(centered, centered));
  const inverse = reciprocal(sqrt(add(variance, attributes.number("epsilon"))));
  const scaled = mul(cast(mul(centered, inverse), dtype), input(1));
  const bias = inputs[2];
  return [bias === undefined ? scaled : add(scaled, bias), mean, inverse];
}

/**
 * c and r from the forward node's outputs. In float64 they are computed again, because ONNX
 * Runtime's outputs are float32 even then.
 */
function statistics(context: GradientContext, rows: Value): { centered: Value; inverse: Value } {
  const count = rows.shape[0] as number;
  if (rows.dtype !== "float64") {
    return {
      centered: sub(rows, reshape(statistic(context, 1), [count, 1])),
      inverse: reshape(statistic(context, 2), [count, 1]),
    };
  }
  const centered = sub(rows, reduceMean(rows, { axes: [1] }));
  const variance = reduceMean(mul(centered, centered), { axes: [1] });
  const epsilon = context.attributes.number("epsilon");
  return { centered, inverse: reciprocal(sqrt(add(variance, epsilon))) };
}
