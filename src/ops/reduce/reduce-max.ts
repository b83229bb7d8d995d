import { extremeGradient } from "./extreme.ts";
import { reduction } from "./shared.ts";

/**
 * The largest element over the dims in input 1 (all, if it is left out). Ties share the gradient
 * evenly.
 */
export const reduceMax = reduction({
  name: "ReduceMax",
  gradient: extremeGradient,
  flops: 1,
  idempotent: true,
  ofParts: { hold: "partial max" },
});
