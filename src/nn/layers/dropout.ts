/** Layers that draw: by keys of samples, so that a sample draws the same on any worker, in any micro-batch. */
import type { Value } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";
import { randomDropout, randomUniform } from "../random.ts";
import type { Scope } from "../scope.ts";
import { positions } from "./positions.ts";

/**
 * In `train` mode, sets a share `rate` of the elements of `x` (batch, …) to 0 and scales the others by 1/(1 - rate) (Srivastava et al. 2014);
 * in `eval` mode, `x` itself.
 */
export function dropout(scope: Scope, x: Value, rate: number): Value {
  if (!(rate >= 0 && rate < 1)) {
    scope.fail(`a dropout rate of ${rate}`, "Set it to at least 0 and less than 1.");
  }
  if (rate === 0 || scope.mode === "eval") return x;
  return scope.within(() => randomDropout(x, scope.key, rate, scope.nextStream()));
}

/** Even in [0, 1), of this shape, whose leading dim is the batch. In `eval` mode, the same for every batch. */
export function uniformLike(scope: Scope, shape: Shape): Value {
  return scope.within(() => {
    const key = scope.mode === "train" ? scope.key : positions(scope.builder, scope.batch);
    return randomUniform(key, shape, { stream: scope.nextStream(), dtype: scope.dtype });
  });
}
