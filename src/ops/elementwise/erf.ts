import { exp, mul, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** ln(2 / √π), which moves the factor of the derivative into the exponent. */
const LOG_SCALE = Math.log(2 / Math.sqrt(Math.PI));

/** The error function; dx = dy · 2/√π · exp(-x²). */
export const erf = unary("Erf", ({ x, dy }) => mul(dy, exp(sub(LOG_SCALE, mul(x, x)))), {
  flops: 10,
});
