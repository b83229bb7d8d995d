import { cast, greater, maximum, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > 0, else α x; the derivative at 0 is α. */
export const leakyRelu = unary(
  "LeakyRelu",
  ({ x, dy, attributes }) => {
    const alpha = attributes.number("alpha");
    const positive = greater(x, 0);
    if (alpha < 0 || alpha > 1) return where(positive, dy, mul(dy, alpha));
    return mul(dy, maximum(cast(positive, dy.dtype), alpha));
  },
  { attributes: { alpha: { kind: "float", default: 0.01 } } },
);
