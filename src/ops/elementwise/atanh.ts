import { div, mul, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy / (1 - x²). */
export const atanh = unary("Atanh", ({ x, dy }) => div(dy, sub(1, mul(x, x))));
