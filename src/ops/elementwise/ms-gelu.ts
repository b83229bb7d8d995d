import { geluGradient } from "./gelu.ts";
import { unary } from "./shared.ts";

/** x Φ(x) under the name that ONNX Runtime's optimizer writes into models. */
export const msGelu = unary("com.microsoft::Gelu", ({ x, dy }) => geluGradient(x, dy), {
  flops: 15,
  severalPasses: true,
});
