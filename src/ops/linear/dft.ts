import { div, mul, pad, slice } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount, normalizeDim, type Shape } from "../../tensor/index.ts";
import { exceptAlong, linearDivisions } from "../divisions.ts";
import { floatType } from "../shared.ts";

/**
 * The discrete Fourier transform along one dim (input 2), cut or zero-padded to a length (input 1).
 * The last dim holds a real number, or a real and an imaginary part; in the result always both.
 * `onesided`: of a real input, only the first half of the spectrum. The dim must be given: ONNX
 * Runtime 1.30 reads memory out of bounds if this input is omitted.
 */
export const dft: OperatorDefinition = {
  name: "DFT",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: {
    inverse: { kind: "int", default: 0 },
    onesided: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const parts = shape.at(-1);
    const isOneSided = context.attributes.number("onesided") === 1;
    if (shape.length < 2 || (parts !== 1 && parts !== 2)) {
      context.fail("takes numbers with 1 part (real) or 2 (real and imaginary) in the last dim");
    }
    if (isOneSided && (parts === 2 || context.attributes.number("inverse") === 1)) {
      context.fail("onesided is for the spectrum of a real input");
    }
    const axis = axisOf(context, shape) ?? context.fail("the axis is not a dim of the signal");
    const length = lengthOf(context, shape, axis);
    if (!(length >= 1)) context.fail(`a length of ${length}`);
    const bins = isOneSided ? Math.floor(length / 2) + 1 : length;
    return [{ dtype, shape: [...shape.slice(0, -1), 2].with(axis, bins) }];
  },
  gradient: (context) => [transposed(context), undefined, undefined],
  flops: (context) => {
    const { shape } = context.input(0);
    const length = lengthOf(context, shape, axisOf(context, shape) ?? 0);
    return 5 * elementCount(context.outputs[0]?.shape ?? []) * Math.ceil(Math.log2(length + 1));
  },
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const transformed = axisOf(context, shape) as number;
    return [
      ...exceptAlong(context, [transformed, shape.length - 1]),
      ...linearDivisions(context, "first"),
    ];
  },
};

interface Context {
  readonly inputs: readonly unknown[];
  constantNumbers(index: number): number[];
}

function axisOf(context: Context, shape: Shape): number | undefined {
  const axis = normalizeDim(context.constantNumbers(2)[0] as number, shape.length);
  return axis === shape.length - 1 ? undefined : axis;
}

function lengthOf(context: Context, shape: Shape, axis: number): number {
  return context.inputs[1] === undefined
    ? (shape[axis] as number)
    : (context.constantNumbers(1)[0] as number);
}

/** The conjugate transpose of the matrix of roots of unity is its inverse, except for a factor. */
function transposed(context: GradientContext): Value {
  const x = context.input(0);
  const axis = axisOf(context, x.shape) as number;
  const length = lengthOf(context, x.shape, axis);
  const isInverse = context.attributes.number("inverse") === 1;
  const dy = fit(context.gradient(0), axis, length);
  const { builder } = x;
  const back = builder.one("DFT", [dy, undefined, builder.scalar("int64", axis)], {
    inverse: !isInverse,
  });
  const scaled = isInverse ? div(back, length) : mul(back, length);
  const real = x.shape.at(-1) === 2 ? scaled : fit(scaled, x.shape.length - 1, 1);
  return fit(real, axis, x.shape[axis] as number);
}

/** `x` cut or zero-padded to `size` along `axis`. */
function fit(x: Value, axis: number, size: number): Value {
  const own = x.shape[axis] as number;
  if (own > size) return slice(x, [{ axis, start: 0, end: size }]);
  const none = x.shape.map(() => 0);
  return pad(x, none, none.with(axis, size - own));
}
