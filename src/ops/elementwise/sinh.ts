import { mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy · cosh x. */
export const sinh = unary("Sinh", ({ x, dy }) => mul(dy, x.builder.one("Cosh", [x])));
