import { mul, neg } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = 1 / x; dx = -dy · y². */
export const reciprocal = unary("Reciprocal", ({ y, dy }) => neg(mul(dy, mul(y, y))), {
  batch: { divides: 0 },
});
