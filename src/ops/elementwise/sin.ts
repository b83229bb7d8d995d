import { cos, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy · cos x. */
export const sin = unary("Sin", ({ x, dy }) => mul(dy, cos(x)));
