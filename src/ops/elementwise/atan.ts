import { add, div, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy / (1 + x²). */
export const atan = unary("Atan", ({ x, dy }) => div(dy, add(mul(x, x), 1)));
