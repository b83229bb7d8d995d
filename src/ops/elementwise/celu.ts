import { add, greater, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > 0, else α (e^(x/α) - 1), whose derivative is y/α + 1. */
export const celu = unary(
  "Celu",
  ({ x, y, dy, attributes }) => {
    const scaled = mul(y, 1 / attributes.number("alpha"));
    return where(greater(x, 0), dy, mul(dy, add(scaled, 1)));
  },
  { attributes: { alpha: { kind: "float", default: 1 } }, flops: 10 },
);
