/** Activations by name. */
import { relu, sigmoid, silu, tanh } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";

/** `gelu` is exact; `gelu_tanh` its approximation; `silu` is x·sigmoid(x). */
export type Activation = "relu" | "gelu" | "gelu_tanh" | "silu" | "tanh" | "sigmoid";

export function activate(x: Value, activation: Activation): Value {
  switch (activation) {
    case "relu":
      return relu(x);
    case "gelu":
      return x.builder.one("Gelu", [x]);
    case "gelu_tanh":
      return x.builder.one("Gelu", [x], { approximate: "tanh" });
    case "silu":
      return silu(x);
    case "tanh":
      return tanh(x);
    case "sigmoid":
      return sigmoid(x);
  }
}
