import { div, mul, sqrt, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** dx = dy / √(x² - 1). */
export const acosh = unary("Acosh", ({ x, dy }) => div(dy, sqrt(sub(mul(x, x), 1))));
