import { mul, neg, sin } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = -dy · sin x. */
export const cos = unary("Cos", ({ x, dy }) => neg(mul(dy, sin(x))));
