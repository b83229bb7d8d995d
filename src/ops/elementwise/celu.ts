import { add, clip, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/**
 * y = x for x > 0, else α (e^(x/α) - 1), whose derivative is y/α + 1; so both are min(y, 0)/α + 1.
 */
export const celu = unary(
  "Celu",
  ({ y, dy, attributes }) =>
    mul(dy, add(mul(clip(y, undefined, 0), 1 / attributes.number("alpha")), 1)),
  { attributes: { alpha: { kind: "float", default: 1 } }, flops: 10 },
);
