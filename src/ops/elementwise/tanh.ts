import { mul, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy · (1 - y²). */
export const tanh = unary("Tanh", ({ y, dy }) => mul(dy, sub(1, mul(y, y))), { flops: 10 });
