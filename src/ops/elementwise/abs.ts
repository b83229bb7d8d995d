import { mul, sign } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = |x|; dx = dy · sign(x): 0 at 0. */
export const abs = unary("Abs", ({ x, dy }) => mul(dy, sign(x)), { integers: true });
