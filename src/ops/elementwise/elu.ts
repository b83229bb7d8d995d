import { add, clip, greater, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > 0, else α (eˣ - 1), whose derivative is y + α. */
export const elu = unary(
  "Elu",
  ({ x, y, dy, attributes }) => {
    const alpha = attributes.number("alpha");
    // With α = 1 the derivative is continuous: both branches are min(y, 0) + 1.
    if (alpha === 1) return mul(dy, add(clip(y, undefined, 0), 1));
    return where(greater(x, 0), dy, mul(dy, add(y, alpha)));
  },
  { attributes: { alpha: { kind: "float", default: 1 } }, flops: 10 },
);
