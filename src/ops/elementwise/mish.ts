import { add, mul, sigmoid, softplus, sub, tanh } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x t with t = tanh(softplus(x)); dx = dy · (t + (x - y t) · sigmoid(x)). */
export const mish = unary(
  "Mish",
  ({ x, y, dy }) => {
    const t = tanh(softplus(x));
    return mul(dy, add(t, mul(sub(x, mul(y, t)), sigmoid(x))));
  },
  { flops: 20, severalPasses: true },
);
