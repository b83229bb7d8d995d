import { greater, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = max(x, 0); dx = dy where y > 0: the derivative at 0 is 0. */
export const relu = unary("Relu", ({ y, dy }) => where(greater(y, 0), dy, 0), { integers: true });
