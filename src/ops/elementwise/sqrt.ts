import { div, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = √x; dx = dy / (2 y): infinite at zero, as the derivative is. */
export const sqrt = unary("Sqrt", ({ y, dy }) => mul(div(dy, y), 0.5));
