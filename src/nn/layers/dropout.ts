/** Dropout by keys of samples: the same sample loses the same elements on any worker, in any micro-batch. */
import type { Value } from "../../graph/index.ts";
import type { Scope } from "../scope.ts";

/**
 * In `train` mode, sets a share `rate` of the elements of `x` (batch, …) to 0 and scales the others by 1/(1 - rate) (Srivastava et al. 2014);
 * in `eval` mode, `x` itself.
 */
export function dropout(scope: Scope, x: Value, rate: number): Value {
  if (!(rate >= 0 && rate < 1)) {
    scope.fail(`a dropout rate of ${rate}`, "Set it to at least 0 and less than 1.");
  }
  if (rate === 0 || scope.mode === "eval") return x;
  return scope.fail("dropout is not here yet");
}
