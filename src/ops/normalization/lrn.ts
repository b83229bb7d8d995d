import { add, div, mul, pow, reshape, sub } from "../../functional/index.ts";
import type { AttributeReader, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { floatType, flopsPerElement } from "../shared.ts";

/**
 * x / (bias + alpha/size · Σ x² over `size` neighbouring channels)^beta of X (N, C, …) (Krizhevsky
 * et al. 2012).
 */
export const lrn: OperatorDefinition = {
  name: "LRN",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    alpha: { kind: "float", default: 1e-4 },
    beta: { kind: "float", default: 0.75 },
    bias: { kind: "float", default: 1 },
    size: { kind: "int" },
  },
  infer: (context) => {
    const type = floatType(context);
    if (type.shape.length < 3) context.fail("takes an input (N, C, sizes)");
    return [type];
  },
  // With s the sum in brackets: dy · s^−β − 2αβ · x · mean over the windows that contain it of (dy
  // · y / s).
  gradient: (context) => {
    const { attributes } = context;
    const [x, y, dy] = [context.input(0), context.output(0), context.gradient(0)];
    const alpha = attributes.number("alpha");
    const beta = attributes.number("beta");
    const inner = add(
      mul(windowMean(mul(x, x), attributes, false), alpha),
      attributes.number("bias"),
    );
    const along = windowMean(div(mul(dy, y), inner), attributes, true);
    return [sub(mul(dy, pow(inner, -beta)), mul(mul(x, along), 2 * alpha * beta))];
  },
  flops: flopsPerElement(10),
  inPlace: false,
  divisions: (context) => exceptAlong(context, [1]),
};

/**
 * The mean over neighbouring channels, with zeros beyond the ends; `mirrored` exchanges before and
 * after.
 */
function windowMean(x: Value, attributes: AttributeReader, mirrored: boolean): Value {
  const size = attributes.number("size");
  const [batch, channels] = x.shape as unknown as [number, number];
  const ends = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
  const [before, after] = (mirrored ? ends.toReversed() : ends) as [number, number];
  const image = reshape(x, [batch, 1, channels, elementCount(x.shape.slice(2))]);
  const means = x.builder.one("AveragePool", [image], {
    kernel_shape: [size, 1],
    pads: [before, 0, after, 0],
    count_include_pad: 1,
  });
  return reshape(means, x.shape);
}
