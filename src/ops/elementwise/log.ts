import { div } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = ln x; dx = dy / x. */
export const log = unary("Log", ({ x, dy }) => div(dy, x));
