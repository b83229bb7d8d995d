import { exp, mul, sub } from "../../functional/index.ts";
import { keptGradient, keptOutput, reduction } from "./shared.ts";

/** Logarithm of the sum of exponentials over the dims in input 1. */
export const reduceLogSumExp = reduction({
  name: "ReduceLogSumExp",
  gradient: (context) =>
    mul(exp(sub(context.input(0), keptOutput(context))), keptGradient(context)),
  flops: 3,
  idempotent: true,
});
