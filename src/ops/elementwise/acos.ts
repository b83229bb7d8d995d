import { div, mul, neg, sqrt, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = -dy / √(1 - x²). */
export const acos = unary("Acos", ({ x, dy }) => neg(div(dy, sqrt(sub(1, mul(x, x))))));
