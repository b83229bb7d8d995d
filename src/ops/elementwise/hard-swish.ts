import { abs, add, cast, clip, less, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/**
 * y = x h with h = clip(x/6 + 1/2, 0, 1); the derivative is h + x/6 within (-3, 3), and h outside.
 */
export const hardSwish = unary(
  "HardSwish",
  ({ x, dy }) => {
    const sixth = mul(x, 1 / 6);
    const within = cast(less(abs(x), 3), dy.dtype);
    return mul(dy, add(clip(add(sixth, 0.5), 0, 1), mul(sixth, within)));
  },
  { flops: 4, severalPasses: true },
);
