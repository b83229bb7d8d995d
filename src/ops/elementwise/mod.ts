import { div, mul, neg, sub } from "../../functional/index.ts";
import { binary } from "./shared.ts";

/**
 * The remainder of a / b: with the sign of b or, with `fmod` (which floats need), that of a. da =
 * dy; db = -dy times the integer quotient (a - y) / b.
 */
export const mod = {
  ...binary("Mod", ({ a, b, y, dy, toA, toB }) => [
    () => toA(dy),
    () => neg(toB(mul(dy, div(sub(a, y), b)))),
  ]),
  attributes: { fmod: { kind: "int", default: 0 } },
} as const;
