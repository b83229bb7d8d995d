import { add, erf, exp, mul, sigmoid, sub } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { unary } from "./shared.ts";

/** x Φ(x), or with `approximate: tanh` its approximation (Hendrycks & Gimpel 2016). */
export const gelu = unary(
  "Gelu",
  ({ x, y, dy, attributes }) =>
    attributes.string("approximate") === "tanh" ? geluTanhGradient(x, y, dy) : geluGradient(x, dy),
  {
    attributes: { approximate: { kind: "string", default: "none" } },
    flops: 15,
    severalPasses: true,
  },
);

const LOG_SCALE = Math.log(2 / Math.sqrt(Math.PI));

/** dx = dy · ½ (1 + erf(s) + 2/√π · s · exp(-s²)) with s = x/√2. */
export function geluGradient(x: Value, dy: Value): Value {
  const s = mul(x, Math.SQRT1_2);
  const density = mul(s, exp(sub(LOG_SCALE, mul(s, s))));
  return mul(dy, mul(add(add(erf(s), 1), density), 0.5));
}

const C = 2 * Math.sqrt(2 / Math.PI);
const CUBE = C * 0.044715;

/**
 * y = x σ(v) with v = C x + CUBE x³, for ½ (1 + tanh(v/2)) = σ(v). So dx = dy · (σ + y (1 - σ) v'), where
 * v' = C + 3 CUBE x².
 */
export function geluTanhGradient(x: Value, y: Value, dy: Value): Value {
  const square = mul(x, x);
  const s = sigmoid(mul(x, add(mul(square, CUBE), C)));
  const slope = add(mul(square, 3 * CUBE), C);
  return mul(dy, add(s, mul(mul(y, sub(1, s)), slope)));
}
