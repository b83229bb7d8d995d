import { extremeGradient } from "./extreme.ts";
import { reduction } from "./shared.ts";

/**
 * The smallest element over the dims in input 1 (all, if it is left out). Ties share the gradient
 * evenly.
 */
export const reduceMin = reduction({
  name: "ReduceMin",
  gradient: extremeGradient,
  flops: 1,
  idempotent: true,
});
