import { add, greater, less, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x · clip(x/6 + 1/2, 0, 1); the derivative is 0 up to -3, 1 from 3 on, and x/3 + 1/2 between. */
export const hardSwish = unary(
  "HardSwish",
  ({ x, dy }) => {
    const between = mul(dy, add(mul(x, 1 / 3), 0.5));
    return where(less(x, 3), where(greater(x, -3), between, 0), dy);
  },
  { flops: 4, severalPasses: true },
);
