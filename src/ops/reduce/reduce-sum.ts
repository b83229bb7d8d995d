import { expand } from "../../functional/index.ts";
import { keptGradient, reduction } from "./shared.ts";

/** Sum over the dims in input 1 (all, if it is left out). */
export const reduceSum = reduction({
  name: "ReduceSum",
  gradient: (context) => expand(keptGradient(context), context.input(0).shape),
  flops: 1,
  idempotent: true,
  batch: { reduces: "sum", linear: "first" },
  ofParts: { hold: "partial" },
});
