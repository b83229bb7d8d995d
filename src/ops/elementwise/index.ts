import type { OperatorDefinition } from "../../graph/index.ts";
import { abs } from "./abs.ts";
import { acos } from "./acos.ts";
import { acosh } from "./acosh.ts";
import { add } from "./add.ts";
import { and } from "./and.ts";
import { asin } from "./asin.ts";
import { asinh } from "./asinh.ts";
import { atan } from "./atan.ts";
import { atanh } from "./atanh.ts";
import { biasGelu } from "./bias-gelu.ts";
import { bitShift } from "./bit-shift.ts";
import { bitwiseAnd } from "./bitwise-and.ts";
import { bitwiseNot } from "./bitwise-not.ts";
import { bitwiseOr } from "./bitwise-or.ts";
import { bitwiseXor } from "./bitwise-xor.ts";
import { cast } from "./cast.ts";
import { castLike } from "./cast-like.ts";
import { ceil } from "./ceil.ts";
import { celu } from "./celu.ts";
import { clip } from "./clip.ts";
import { cos } from "./cos.ts";
import { cosh } from "./cosh.ts";
import { div } from "./div.ts";
import { dropout } from "./dropout.ts";
import { elu } from "./elu.ts";
import { equal } from "./equal.ts";
import { erf } from "./erf.ts";
import { exp } from "./exp.ts";
import { fastGelu } from "./fast-gelu.ts";
import { floor } from "./floor.ts";
import { gelu } from "./gelu.ts";
import { greater } from "./greater.ts";
import { greaterOrEqual } from "./greater-or-equal.ts";
import { hardSigmoid } from "./hard-sigmoid.ts";
import { hardSwish } from "./hard-swish.ts";
import { isInf } from "./is-inf.ts";
import { isNaN } from "./is-nan.ts";
import { leakyRelu } from "./leaky-relu.ts";
import { less } from "./less.ts";
import { lessOrEqual } from "./less-or-equal.ts";
import { log } from "./log.ts";
import { max } from "./max.ts";
import { mean } from "./mean.ts";
import { min } from "./min.ts";
import { mish } from "./mish.ts";
import { mod } from "./mod.ts";
import { msGelu } from "./ms-gelu.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { not } from "./not.ts";
import { or } from "./or.ts";
import { pow } from "./pow.ts";
import { prelu } from "./prelu.ts";
import { quickGelu } from "./quick-gelu.ts";
import { reciprocal } from "./reciprocal.ts";
import { relu } from "./relu.ts";
import { round } from "./round.ts";
import { selu } from "./selu.ts";
import { shrink } from "./shrink.ts";
import { sigmoid } from "./sigmoid.ts";
import { sign } from "./sign.ts";
import { sin } from "./sin.ts";
import { sinh } from "./sinh.ts";
import { softplus } from "./softplus.ts";
import { softsign } from "./softsign.ts";
import { sqrt } from "./sqrt.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { tan } from "./tan.ts";
import { tanh } from "./tanh.ts";
import { thresholdedRelu } from "./thresholded-relu.ts";
import { where } from "./where.ts";
import { xor } from "./xor.ts";

export const elementwise = {
  Abs: abs,
  Acos: acos,
  Acosh: acosh,
  Add: add,
  And: and,
  Asin: asin,
  Asinh: asinh,
  Atan: atan,
  Atanh: atanh,
  BitShift: bitShift,
  BitwiseAnd: bitwiseAnd,
  BitwiseNot: bitwiseNot,
  BitwiseOr: bitwiseOr,
  BitwiseXor: bitwiseXor,
  Cast: cast,
  CastLike: castLike,
  Ceil: ceil,
  Celu: celu,
  Clip: clip,
  Cos: cos,
  Cosh: cosh,
  Div: div,
  Dropout: dropout,
  Elu: elu,
  Equal: equal,
  Erf: erf,
  Exp: exp,
  Floor: floor,
  Gelu: gelu,
  Greater: greater,
  GreaterOrEqual: greaterOrEqual,
  HardSigmoid: hardSigmoid,
  HardSwish: hardSwish,
  IsInf: isInf,
  IsNaN: isNaN,
  LeakyRelu: leakyRelu,
  Less: less,
  LessOrEqual: lessOrEqual,
  Log: log,
  Max: max,
  Mean: mean,
  Min: min,
  Mish: mish,
  Mod: mod,
  Mul: mul,
  Neg: neg,
  Not: not,
  Or: or,
  PRelu: prelu,
  Pow: pow,
  Reciprocal: reciprocal,
  Relu: relu,
  Round: round,
  Selu: selu,
  Shrink: shrink,
  Sigmoid: sigmoid,
  Sign: sign,
  Sin: sin,
  Sinh: sinh,
  Softplus: softplus,
  Softsign: softsign,
  Sqrt: sqrt,
  Sub: sub,
  Sum: sum,
  Tan: tan,
  Tanh: tanh,
  ThresholdedRelu: thresholdedRelu,
  Where: where,
  Xor: xor,
  "com.microsoft::BiasGelu": biasGelu,
  "com.microsoft::FastGelu": fastGelu,
  "com.microsoft::Gelu": msGelu,
  "com.microsoft::QuickGelu": quickGelu,
} satisfies Record<string, OperatorDefinition>;
