import { div, exp, expand } from "../../functional/index.ts";
import { keptGradient, keptOutput, reduction } from "./shared.ts";

/** Logarithm of the sum over the dims in input 1. */
export const reduceLogSum = reduction({
  name: "ReduceLogSum",
  gradient: (context) =>
    expand(div(keptGradient(context), exp(keptOutput(context))), context.input(0).shape),
  flops: 1,
  idempotent: false,
});
