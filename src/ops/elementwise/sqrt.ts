import { div, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = √x; dx = dy / (2 y), which is infinite at zero like the derivative. */
export const sqrt = unary("Sqrt", ({ y, dy }) => mul(div(dy, y), 0.5));
