import { mul, sign } from "../../functional/index.ts";
import { keptGradient, reduction } from "./shared.ts";

/**
 * The sum of absolute values over the dims in input 1. The gradient is 0 where an element is 0 (as
 * in PyTorch).
 */
export const reduceL1 = reduction({
  name: "ReduceL1",
  gradient: (context) => mul(sign(context.input(0)), keptGradient(context)),
  flops: 2,
  idempotent: false,
  batch: { reduces: "sum" },
  ofParts: { hold: "partial" },
});
