import type { elementwise } from "../ops/elementwise/index.ts";
import type { DType } from "../tensor/index.ts";
import { broadcastReader, elementwiseKernel, type Kernel, type KernelContext } from "./kernel.ts";
import { erf } from "./special.ts";

/** A kernel whose computation depends on the attributes. */
function withAttributes(
  make: (attributes: KernelContext["attributes"]) => (...values: number[]) => number,
): Kernel {
  return (context) => elementwiseKernel(make(context.attributes))(context);
}

/** Products of 32-bit integers wrap around: they do not fit a float64. */
const multiply: Kernel = (context) =>
  elementwiseKernel(isInt32(context.output(0).dtype) ? Math.imul : (a, b) => a * b)(context);

/**
 * Integers are divided towards zero, because the interpreter truncates when it rounds to the
 * element type.
 */
const divide: Kernel = elementwiseKernel((a, b) => a / b);

function isInt32(dtype: DType): boolean {
  return dtype === "int32" || dtype === "uint32";
}

/** Bit operations work on 32 bits, or on the low 53 bits of a wider integer. */
function bits(compute: (a: bigint, b: bigint) => bigint): Kernel {
  return elementwiseKernel((a, b) => Number(BigInt.asIntN(64, compute(BigInt(a), BigInt(b)))));
}

const shift: Kernel = withAttributes((attributes) =>
  attributes.string("direction") === "LEFT"
    ? (a, b) => Number(BigInt.asUintN(64, BigInt(a) << BigInt(b)))
    : (a, b) => Number(BigInt(a) >> BigInt(b)),
);

const predicate = (compute: (a: number, b: number) => boolean): Kernel =>
  elementwiseKernel((a, b) => Number(compute(a, b)));

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const clamp = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high);
const gelu = (x: number): number => (x / 2) * (1 + erf(x * Math.SQRT1_2));
const geluTanh = (x: number): number =>
  (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

function roundHalfToEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Bounds may be omitted, so they are not broadcast operands. */
const clip: Kernel = (context) => {
  const bound = (index: number, none: number) => context.inputs[index]?.data[0] ?? none;
  const [low, high] = [bound(1, Number.NEGATIVE_INFINITY), bound(2, Number.POSITIVE_INFINITY)];
  const x = context.input(0);
  return [{ ...context.output(0), data: x.data.map((value) => clamp(value, low, high)) }];
};

/**
 * Supports inference only: the numbers that an engine draws in training mode cannot be known here.
 */
const dropout: Kernel = ({ input, inputs, outputs }) => {
  const x = input(0);
  if ((inputs[2]?.data[0] ?? 0) !== 0) {
    throw new Error("Dropout in training mode is drawn by the engine: it has no reference");
  }
  const results = [{ ...x, data: x.data.slice() }];
  if (outputs.length > 1) {
    results.push({ dtype: "bool", shape: x.shape, data: x.data.map(() => 1) });
  }
  return results;
};

const castKernel: Kernel = ({ input, output }) => {
  const { data } = input(0);
  return [{ ...output(0), data: data.slice() }];
};

const prelu: Kernel = ({ input, output }) => {
  const x = input(0);
  const slope = broadcastReader(input(1), x.shape);
  const data = x.data.map((value, index) => (value >= 0 ? value : value * slope(index)));
  return [{ ...output(0), data }];
};

const modulo: Kernel = withAttributes((attributes) =>
  attributes.number("fmod") === 1 ? (a, b) => a % b : (a, b) => a - b * Math.floor(a / b),
);

export const elementwiseKernels: Record<keyof typeof elementwise, Kernel> = {
  Abs: elementwiseKernel(Math.abs),
  Acos: elementwiseKernel(Math.acos),
  Acosh: elementwiseKernel(Math.acosh),
  Add: elementwiseKernel((a, b) => a + b),
  And: predicate((a, b) => a !== 0 && b !== 0),
  Asin: elementwiseKernel(Math.asin),
  Asinh: elementwiseKernel(Math.asinh),
  Atan: elementwiseKernel((x) => Math.atan(x)),
  Atanh: elementwiseKernel(Math.atanh),
  BitShift: shift,
  BitwiseAnd: bits((a, b) => a & b),
  BitwiseNot: elementwiseKernel((x) => -1 - x),
  BitwiseOr: bits((a, b) => a | b),
  BitwiseXor: bits((a, b) => a ^ b),
  Cast: castKernel,
  CastLike: castKernel,
  Ceil: elementwiseKernel(Math.ceil),
  Celu: withAttributes((attributes) => {
    const alpha = attributes.number("alpha");
    return (x) => (x > 0 ? x : alpha * Math.expm1(x / alpha));
  }),
  Clip: clip,
  Cos: elementwiseKernel(Math.cos),
  Cosh: elementwiseKernel(Math.cosh),
  Div: divide,
  Dropout: dropout,
  Elu: withAttributes((attributes) => {
    const alpha = attributes.number("alpha");
    return (x) => (x > 0 ? x : alpha * Math.expm1(x));
  }),
  Equal: predicate((a, b) => a === b),
  Erf: elementwiseKernel(erf),
  Exp: elementwiseKernel(Math.exp),
  Floor: elementwiseKernel(Math.floor),
  Gelu: withAttributes((attributes) =>
    attributes.string("approximate") === "tanh" ? geluTanh : gelu,
  ),
  Greater: predicate((a, b) => a > b),
  GreaterOrEqual: predicate((a, b) => a >= b),
  HardSigmoid: withAttributes((attributes) => {
    const [alpha, beta] = [attributes.number("alpha"), attributes.number("beta")];
    return (x) => clamp(alpha * x + beta, 0, 1);
  }),
  HardSwish: elementwiseKernel((x) => x * clamp(x / 6 + 0.5, 0, 1)),
  IsInf: withAttributes((attributes) => {
    const negative = attributes.number("detect_negative") === 1;
    const positive = attributes.number("detect_positive") === 1;
    return (x) =>
      Number((negative && x === -Infinity) || (positive && x === Number.POSITIVE_INFINITY));
  }),
  IsNaN: elementwiseKernel((x) => Number(Number.isNaN(x))),
  LeakyRelu: withAttributes((attributes) => {
    const alpha = attributes.number("alpha");
    return (x) => (x > 0 ? x : alpha * x);
  }),
  Less: predicate((a, b) => a < b),
  LessOrEqual: predicate((a, b) => a <= b),
  Log: elementwiseKernel(Math.log),
  Max: elementwiseKernel(Math.max),
  Mean: elementwiseKernel((...values) => values.reduce((a, b) => a + b) / values.length),
  Min: elementwiseKernel(Math.min),
  Mish: elementwiseKernel((x) => x * Math.tanh(softplus(x))),
  Mod: modulo,
  Mul: multiply,
  Neg: elementwiseKernel((x) => -x),
  Not: elementwiseKernel((x) => Number(x === 0)),
  Or: predicate((a, b) => a !== 0 || b !== 0),
  PRelu: prelu,
  Pow: elementwiseKernel((x, e) => x ** e),
  Reciprocal: elementwiseKernel((x) => 1 / x),
  Relu: elementwiseKernel((x) => Math.max(x, 0)),
  Round: elementwiseKernel(roundHalfToEven),
  Selu: withAttributes((attributes) => {
    const [alpha, gamma] = [attributes.number("alpha"), attributes.number("gamma")];
    return (x) => gamma * (x > 0 ? x : alpha * Math.expm1(x));
  }),
  Shrink: withAttributes((attributes) => {
    const [bias, lambda] = [attributes.number("bias"), attributes.number("lambd")];
    return (x) => (x > lambda ? x - bias : x < -lambda ? x + bias : 0);
  }),
  Sigmoid: elementwiseKernel(sigmoid),
  Sign: elementwiseKernel(Math.sign),
  Sin: elementwiseKernel(Math.sin),
  Sinh: elementwiseKernel(Math.sinh),
  Softplus: elementwiseKernel(softplus),
  Softsign: elementwiseKernel((x) => x / (1 + Math.abs(x))),
  Sqrt: elementwiseKernel(Math.sqrt),
  Sub: elementwiseKernel((a, b) => a - b),
  Sum: elementwiseKernel((...values) => values.reduce((a, b) => a + b)),
  Tan: elementwiseKernel(Math.tan),
  Tanh: elementwiseKernel(Math.tanh),
  ThresholdedRelu: withAttributes((attributes) => {
    const alpha = attributes.number("alpha");
    return (x) => (x > alpha ? x : 0);
  }),
  Where: elementwiseKernel((condition, a, b) => (condition === 0 ? b : a)),
  Xor: predicate((a, b) => (a !== 0) !== (b !== 0)),
  "com.microsoft::BiasGelu": elementwiseKernel((x, bias) => gelu(x + bias)),
  "com.microsoft::FastGelu": elementwiseKernel((x, bias = 0) => geluTanh(x + bias)),
  "com.microsoft::Gelu": elementwiseKernel(gelu),
  "com.microsoft::QuickGelu": withAttributes((attributes) => {
    const alpha = attributes.number("alpha");
    return (x) => x * sigmoid(alpha * x);
  }),
};
