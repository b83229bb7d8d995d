import { add, div, mul, sqrt } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy / √(x² + 1). */
export const asinh = unary("Asinh", ({ x, dy }) => div(dy, sqrt(add(mul(x, x), 1))));
