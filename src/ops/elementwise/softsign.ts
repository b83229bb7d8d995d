import { abs, add, div, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x / (1 + |x|); dx = dy / (1 + |x|)². */
export const softsign = unary(
  "Softsign",
  ({ x, dy }) => {
    const base = add(abs(x), 1);
    return div(dy, mul(base, base));
  },
  { flops: 3 },
);
