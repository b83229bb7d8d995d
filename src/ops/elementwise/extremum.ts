/** The gradient of Max and Min: it goes to the chosen input, and equal inputs share it evenly. */
import { add, cast, div, equal, mul, sub, where } from "../../functional/index.ts";
import type { GradientContext, Value } from "../../graph/index.ts";

/** @param beatsOrTies compares like the operator: whether a is chosen over b, or equal to it */
export function extremumGradient(
  context: GradientContext,
  index: number,
  beatsOrTies: (a: Value, b: Value) => Value,
): Value {
  const dy = context.gradient(0);
  if (context.inputs.length === 1) return dy;
  const x = context.input(index);
  if (context.inputs.length === 2) {
    const other = context.input(1 - index);
    const half = mul(cast(equal(x, other), dy.dtype), 0.5);
    const share = mul(dy, sub(1, half));
    return where(beatsOrTies(x, other), share, 0);
  }
  const y = context.output(0);
  const hits = context.inputs.map((_, i) => cast(equal(context.input(i), y), dy.dtype));
  const count = hits.reduce((left, right) => add(left, right));
  return mul(div(dy, count), hits[index] as Value);
}
