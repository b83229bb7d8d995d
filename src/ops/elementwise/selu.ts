import { add, greater, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = γ x for x > 0, else γ α (eˣ - 1), whose derivative is y + γ α. */
export const selu = unary(
  "Selu",
  ({ x, y, dy, attributes }) => {
    const [alpha, gamma] = [attributes.number("alpha"), attributes.number("gamma")];
    return mul(dy, where(greater(x, 0), gamma, add(y, alpha * gamma)));
  },
  {
    attributes: {
      alpha: { kind: "float", default: 1.6732632423543772 },
      gamma: { kind: "float", default: 1.0507009873554805 },
    },
    flops: 10,
  },
);
