import { mul } from "../../functional/index.ts";
import type {
  AttributeReader,
  GradientContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, isFloat, type Shape } from "../../tensor/index.ts";
import { along, exceptAlong, linearDivisions } from "../divisions.ts";
import { type AxisMap, spreadTiles, transposeMaps } from "./axis-map.ts";
import {
  globalPoolType,
  isTiling,
  POOL_ATTRIBUTES,
  pooledType,
  poolWindow,
  spatialDims,
  windowTaps,
} from "./pool.ts";

/**
 * The mean of each window of X (N, C, sizes). With `count_include_pad` the zeros of the padding are
 * counted, but not the positions beyond the padding that a window of `ceil_mode` covers.
 */
export const averagePool: OperatorDefinition = {
  name: "AveragePool",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { ...POOL_ATTRIBUTES, count_include_pad: { kind: "int", default: 0 } },
  infer: (context) => [pooledType(context)],
  gradient: (context) => {
    const [x, dy] = [context.input(0), context.gradient(0)];
    const window = poolWindow(context.attributes, x.shape);
    if (isTiling(window, x.shape.slice(2))) {
      return [spreadTiles(mul(dy, 1 / elementCount(window.kernel)), window.kernel)];
    }
    return [transposeMaps(dy, meanMaps(context.attributes, x.shape, dy.shape))];
  },
  flops: (context) =>
    elementCount(context.attributes.numbers("kernel_shape")) *
    elementCount(context.outputs[0]?.shape ?? []),
  inPlace: false,
  divisions: (context) => [
    ...exceptAlong(context, spatialDims(context.input(0).shape)),
    ...linearDivisions(context, "first"),
  ],
};

/**
 * Averaging is one linear map along each spatial dim, because the number of elements in a window is
 * a product over dims.
 */
function meanMaps(attributes: AttributeReader, x: Shape, y: Shape): AxisMap[] {
  const window = poolWindow(attributes, x);
  const withPad = attributes.number("count_include_pad") === 1;
  return window.kernel.map((_, i) => {
    const size = x[i + 2] as number;
    const taps = windowTaps(window, i, size, y[i + 2] as number).map(({ at, padded }) => {
      const count = withPad ? padded : at.length;
      return at.map((position) => ({ at: position, weight: 1 / count }));
    });
    return { axis: i + 2, from: size, taps };
  });
}

/** The mean over all spatial dims. */
export const globalAveragePool: OperatorDefinition = {
  name: "GlobalAveragePool",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [globalPoolType(context)],
  gradient: (context) => [globalMean(context)],
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
  divisions: (context) => {
    const { dtype, shape } = context.input(0);
    const spatial = spatialDims(shape);
    const lines = exceptAlong(context, spatial);
    if (!isFloat(dtype)) return lines;
    // A mean is the sum of the means of equal parts, each divided by their number.
    const parts = spatial.flatMap((dim) =>
      along(context, {
        inputs: [dim],
        outputs: ["partial"],
        local: ({ inputs, again, ranks }) => [mul(again(inputs)[0] as Value, 1 / ranks)],
      }),
    );
    return [...lines, ...parts, ...linearDivisions(context, "first")];
  },
};

function globalMean(context: GradientContext) {
  const sizes = context.input(0).shape.slice(2);
  return spreadTiles(mul(context.gradient(0), 1 / elementCount(sizes)), sizes);
}
