import { cast, greater, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/**
 * y = max(x, 0); dx = dy where y > 0: the derivative at 0 is 0. A product with the mask, for `Where` takes two to three
 * times as long in ONNX Runtime: it runs on one thread. (So an infinite dy gives NaN where it is masked.)
 */
export const relu = unary("Relu", ({ y, dy }) => mul(dy, cast(greater(y, 0), dy.dtype)), {
  integers: true,
});
