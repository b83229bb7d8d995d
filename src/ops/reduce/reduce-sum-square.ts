import { mul } from "../../functional/index.ts";
import { keptGradient, reduction } from "./shared.ts";

/** Sum of squares over the dims in input 1. */
export const reduceSumSquare = reduction({
  name: "ReduceSumSquare",
  gradient: (context) => mul(context.input(0), mul(keptGradient(context), 2)),
  flops: 2,
  idempotent: false,
  batch: { reduces: "sum" },
  ofParts: { hold: "partial" },
});
