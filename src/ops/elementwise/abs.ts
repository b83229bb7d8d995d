import { cast, greater, less, mul, sub } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/**
 * y = |x|; dx = dy · sign(x), which is 0 at 0. The sign is a difference of masks, because the
 * operator `Sign` runs on one thread in ONNX Runtime and does not exist on WebGPU.
 */
export const abs = unary(
  "Abs",
  ({ x, dy }) => mul(dy, sub(cast(greater(x, 0), dy.dtype), cast(less(x, 0), dy.dtype))),
  { integers: true },
);
