import { add, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy · (1 + y²). */
export const tan = unary("Tan", ({ y, dy }) => mul(dy, add(mul(y, y), 1)));
