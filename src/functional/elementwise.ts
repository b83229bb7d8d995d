/** Elementwise functions, with broadcasting by NumPy's rules. */

import type { Value } from "../graph/index.ts";
import { checkOptions, choice } from "../options.ts";
import { DTYPES, type DType } from "../tensor/index.ts";
import { asValue, type Operand, operands } from "./operand.ts";

function unary(op: string, x: Value): Value {
  return x.builder.one(op, [x]);
}

function binary(op: string, a: Operand, b: Operand): Value {
  const [left, right] = operands(a, b);
  return left.builder.one(op, [left, right]);
}

export const add = (a: Operand, b: Operand): Value => binary("Add", a, b);
export const sub = (a: Operand, b: Operand): Value => binary("Sub", a, b);
export const mul = (a: Operand, b: Operand): Value => binary("Mul", a, b);
export const div = (a: Operand, b: Operand): Value => binary("Div", a, b);
export const pow = (a: Operand, b: Operand): Value => binary("Pow", a, b);
export const maximum = (a: Operand, b: Operand): Value => binary("Max", a, b);
export const minimum = (a: Operand, b: Operand): Value => binary("Min", a, b);

export const neg = (x: Value): Value => unary("Neg", x);
export const abs = (x: Value): Value => unary("Abs", x);
export const sign = (x: Value): Value => unary("Sign", x);
export const sqrt = (x: Value): Value => unary("Sqrt", x);
export const exp = (x: Value): Value => unary("Exp", x);
export const log = (x: Value): Value => unary("Log", x);
export const reciprocal = (x: Value): Value => unary("Reciprocal", x);
export const erf = (x: Value): Value => unary("Erf", x);
export const sin = (x: Value): Value => unary("Sin", x);
export const cos = (x: Value): Value => unary("Cos", x);
export const tanh = (x: Value): Value => unary("Tanh", x);
export const sigmoid = (x: Value): Value => unary("Sigmoid", x);
export const softplus = (x: Value): Value => unary("Softplus", x);
export const relu = (x: Value): Value => unary("Relu", x);
export const floor = (x: Value): Value => unary("Floor", x);
/**
 * `x` (float32 or float64) as a constant: no gradient flows through it. It is made of Floor, whose
 * gradient is zero, after a scaling that leaves only multiples of 2⁻⁶⁰.
 */
export const detach = (x: Value): Value => mul(floor(mul(x, 2 ** 60)), 2 ** -60);
export const square = (x: Value): Value => mul(x, x);

const GELU_OPTIONS = { approximate: choice("none", "tanh").optional() };

/** x Φ(x), or with `approximate: "tanh"` its approximation. */
export function gelu(x: Value, options: { approximate?: "none" | "tanh" } = {}): Value {
  checkOptions("gelu", options, GELU_OPTIONS);
  return x.builder.one("Gelu", [x], { approximate: options.approximate });
}

/**
 * x σ(α x): a cheap approximation of gelu (α = 1.702). It needs an engine with Microsoft's
 * operators.
 */
export function quickGelu(x: Value, alpha = 1.702): Value {
  return x.builder.one("com.microsoft::QuickGelu", [x], { alpha });
}

/** x σ(x), also called swish. */
export const silu = (x: Value): Value => mul(x, sigmoid(x));

/** x for x > 0, else slope · x. */
export function leakyRelu(x: Value, slope = 0.01): Value {
  return x.builder.one("LeakyRelu", [x], { alpha: slope });
}

/** x for x > 0, else α (eˣ - 1). */
export function elu(x: Value, alpha = 1): Value {
  return x.builder.one("Elu", [x], { alpha });
}

/** α x + β, clamped to [0, 1]. */
export function hardSigmoid(x: Value, { alpha = 0.2, beta = 0.5 } = {}): Value {
  return x.builder.one("HardSigmoid", [x], { alpha, beta });
}

/** x clamped to [`low`, `high`]; either bound may be omitted. */
export function clip(x: Value, low?: Operand, high?: Operand): Value {
  const bound = (operand: Operand | undefined) =>
    operand === undefined ? undefined : asValue(operand, x);
  return x.builder.one("Clip", [x, bound(low), bound(high)]);
}

/** Comparisons, whose results are bool. */
export const equal = (a: Operand, b: Operand): Value => binary("Equal", a, b);
export const greater = (a: Operand, b: Operand): Value => binary("Greater", a, b);
export const less = (a: Operand, b: Operand): Value => binary("Less", a, b);
export const greaterOrEqual = (a: Operand, b: Operand): Value => binary("GreaterOrEqual", a, b);
export const lessOrEqual = (a: Operand, b: Operand): Value => binary("LessOrEqual", a, b);
export const not = (x: Value): Value => unary("Not", x);
export const and = (a: Value, b: Value): Value => binary("And", a, b);
export const or = (a: Value, b: Value): Value => binary("Or", a, b);
export const isNaN = (x: Value): Value => unary("IsNaN", x);

/** `a` where `condition` (bool) is true, and `b` elsewhere. */
export function where(condition: Value, a: Operand, b: Operand): Value {
  const [left, right] = operands(a, b);
  return condition.builder.one("Where", [condition, left, right]);
}

export function cast(x: Value, dtype: DType): Value {
  return x.dtype === dtype ? x : x.builder.one("Cast", [x], { to: dtypeNumber(dtype) });
}

function dtypeNumber(dtype: DType): number {
  return DTYPES[dtype].onnx;
}
