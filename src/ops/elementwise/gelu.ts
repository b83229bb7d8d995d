import { add, erf, exp, hardSigmoid, mul, sigmoid, sub } from "../../functional/index.ts";
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

const LOG_SCALE = -Math.log(Math.sqrt(2 * Math.PI));

/**
 * dx = dy · (Φ + x φ), where Φ = ½ (1 + erf(x/√2)) and φ is its derivative. HardSigmoid computes ½
 * y + ½ in one pass over memory: an erf lies between -1 and 1, so nothing is clamped.
 */
export function geluGradient(x: Value, dy: Value): Value {
  const s = mul(x, Math.SQRT1_2);
  const share = hardSigmoid(erf(s), { alpha: 0.5, beta: 0.5 });
  const density = exp(sub(LOG_SCALE, mul(s, s)));
  return mul(dy, add(share, mul(x, density)));
}

const C = 2 * Math.sqrt(2 / Math.PI);
const CUBE = C * 0.044715;

/**
 * y = x σ(v) with v = C x + CUBE x³, because ½ (1 + tanh(v/2)) = σ(v). So dx = dy · (σ + y (1 - σ)
 * v'), where v' = C + 3 CUBE x².
 */
export function geluTanhGradient(x: Value, y: Value, dy: Value): Value {
  const square = mul(x, x);
  const s = sigmoid(mul(x, add(mul(square, CUBE), C)));
  const slope = add(mul(square, 3 * CUBE), C);
  return mul(dy, add(s, mul(mul(y, sub(1, s)), slope)));
}
