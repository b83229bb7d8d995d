import { div, mul, sqrt, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy / √(1 - x²). */
export const asin = unary("Asin", ({ x, dy }) => div(dy, sqrt(sub(1, mul(x, x)))));
