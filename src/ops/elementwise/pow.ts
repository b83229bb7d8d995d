import {
  and,
  cast,
  div,
  equal,
  greaterOrEqual,
  log,
  mul,
  neg,
  pow as power,
  sub,
  sumTo,
  where,
  zerosLike,
} from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { isFloat, toNumbers } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { broadcastOf, numberType } from "./shared.ts";

/** y = x to the power e, in the type of x; e may have another type. */
export const pow: OperatorDefinition = {
  name: "Pow",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [
    { dtype: numberType(context, true).dtype, shape: broadcastOf(context, 0, 1) },
  ],
  gradient: (context) => [
    context.needs(0) ? sumTo(baseGradient(context), context.input(0).shape) : undefined,
    context.needs(1) ? exponentGradient(context) : undefined,
  ],
  flops: flopsPerElement(10),
  inPlace: true,
  within: "elements",
  divisions: byElement,
};

function baseGradient(context: GradientContext): Value {
  const [x, e, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const known = singleExponent(context);
  if (known !== undefined) return constantRule(known, x, context.output(0), dy);
  // x⁰ has the slope 0, also at x = 0: the base is replaced there.
  const typed = cast(e, x.dtype);
  const safe = where(equal(typed, 0), 1, x);
  return mul(dy, mul(typed, power(safe, sub(typed, 1))));
}

/**
 * The gradient for an exponent that is known in advance, in few passes and correct for a base of 0.
 */
function constantRule(exponent: number, x: Value, y: Value, dy: Value): Value {
  switch (exponent) {
    case 0:
      return zerosLike(dy);
    case 1:
      return dy;
    case 2:
      return mul(mul(dy, x), 2);
    case 3:
      return mul(mul(dy, mul(x, x)), 3);
    case 0.5:
      return mul(div(dy, y), 0.5);
    case -0.5:
      return mul(mul(dy, div(y, x)), -0.5);
    case -1:
      return neg(mul(dy, mul(y, y)));
    default:
      return mul(dy, mul(power(x, exponent - 1), exponent));
  }
}

function singleExponent(context: GradientContext): number | undefined {
  const constant = context.constant(1);
  if (constant === undefined) return undefined;
  const numbers = toNumbers(constant);
  return numbers.every((number) => number === numbers[0]) ? numbers[0] : undefined;
}

/** de = dy · y · ln x, and 0 where x = 0 and e ≥ 0. */
function exponentGradient(context: GradientContext): Value | undefined {
  const [x, e, dy] = [context.input(0), context.input(1), context.gradient(0)];
  if (!isFloat(x.dtype)) return undefined;
  const flat = and(equal(x, 0), greaterOrEqual(e, 0));
  const de = mul(dy, mul(context.output(0), log(where(flat, 1, x))));
  return cast(sumTo(de, e.shape), e.dtype);
}
