import { mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = eˣ; dx = dy · y. */
export const exp = unary("Exp", ({ y, dy }) => mul(dy, y));
