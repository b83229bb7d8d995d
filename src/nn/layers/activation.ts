/** Activations by name. */
import { gelu, mul, quickGelu, relu, sigmoid, silu, tanh } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";

/**
 * `gelu` is exact; `gelu_tanh` and `quick_gelu` (x·sigmoid(1.702·x), the cheapest) are its
 * approximations; `silu` is x·sigmoid(x).
 */
export const ACTIVATIONS = [
  "relu",
  "gelu",
  "gelu_tanh",
  "quick_gelu",
  "silu",
  "tanh",
  "sigmoid",
] as const;
export type Activation = (typeof ACTIVATIONS)[number];

export function activate(x: Value, activation: Activation): Value {
  switch (activation) {
    case "relu":
      return relu(x);
    case "gelu":
      return gelu(x);
    case "gelu_tanh":
      return gelu(x, { approximate: "tanh" });
    case "quick_gelu":
      return x.dtype === "float64" ? mul(x, sigmoid(mul(x, 1.702))) : quickGelu(x);
    case "silu":
      return silu(x);
    case "tanh":
      return tanh(x);
    case "sigmoid":
      return sigmoid(x);
  }
}
