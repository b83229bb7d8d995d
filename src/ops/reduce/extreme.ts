/** The gradient of ReduceMax and ReduceMin. */
import { cast, div, equal, mul, reduceSum } from "../../functional/index.ts";
import type { GradientContext, Value } from "../../graph/index.ts";
import { dimsOf, keptGradient, keptOutput } from "./shared.ts";

/**
 * The gradient goes to the elements equal to the extreme; several share it evenly (as in PyTorch's
 * amax).
 */
export function extremeGradient(context: GradientContext): Value {
  const x = context.input(0);
  const chosen = cast(equal(x, keptOutput(context)), x.dtype);
  const count = reduceSum(chosen, { axes: dimsOf(context) });
  return mul(chosen, div(keptGradient(context), count));
}
