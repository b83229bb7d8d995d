import { mul, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = 1 / (1 + e⁻ˣ); dx = dy · y · (1 - y). */
export const sigmoid = unary("Sigmoid", ({ y, dy }) => mul(mul(dy, y), sub(1, y)), { flops: 10 });
