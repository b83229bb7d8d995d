import { greater, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > 0, else α x; the derivative at 0 is α. */
export const leakyRelu = unary(
  "LeakyRelu",
  ({ x, dy, attributes }) => where(greater(x, 0), dy, mul(dy, attributes.number("alpha"))),
  { attributes: { alpha: { kind: "float", default: 0.01 } } },
);
