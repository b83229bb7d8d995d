import { mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy · sinh x. */
export const cosh = unary("Cosh", ({ x, dy }) => mul(dy, x.builder.one("Sinh", [x])));
