import { mul, sigmoid } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = ln(1 + eˣ); dx = dy · sigmoid(x). */
export const softplus = unary("Softplus", ({ x, dy }) => mul(dy, sigmoid(x)), { flops: 10 });
