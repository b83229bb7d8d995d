import { add, mul, sigmoid, sub } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { unary } from "./shared.ts";

/** y = x σ(α x); dx = dy · σ · (1 + α (x - y)). */
export const quickGelu = unary(
  "com.microsoft::QuickGelu",
  ({ x, y, dy, attributes }) => {
    const alpha = attributes.number("alpha");
    const scaled = (value: Value) => (alpha === 1 ? value : mul(value, alpha));
    return mul(dy, mul(sigmoid(scaled(x)), add(scaled(sub(x, y)), 1)));
  },
  { attributes: { alpha: { kind: "float", default: 1.702 } }, flops: 12, severalPasses: true },
);
