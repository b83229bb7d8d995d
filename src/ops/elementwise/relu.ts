import { cast, greater, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/**
 * y = max(x, 0); dx = dy where y > 0, so the derivative at 0 is 0. It is a product with the mask,
 * because `Where` takes two to three times as long in ONNX Runtime, where it runs on one thread.
 * (So an infinite dy gives NaN where it is masked.)
 */
export const relu = unary("Relu", ({ y, dy }) => mul(dy, cast(greater(y, 0), dy.dtype)), {
  integers: true,
});
