import { expand, mul } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { keptGradient, reduction } from "./shared.ts";

/** Mean over the dims in input 1 (all, if it is left out). */
export const reduceMean = reduction({
  name: "ReduceMean",
  gradient: (context) => {
    const x = context.input(0);
    const dy = keptGradient(context);
    // The gradient is scaled before it is expanded, so that the small tensor is multiplied.
    return expand(mul(dy, elementCount(dy.shape) / elementCount(x.shape)), x.shape);
  },
  flops: 1,
  idempotent: true,
  batch: { reduces: "mean", sumOf: "ReduceSum", linear: "first" },
  ofParts: {
    hold: "partial",
    floatsOnly: true,
    // The mean of a part of the elements counts for as much as all ranks are.
    local: ({ inputs, ranks, again }) => [mul(again(inputs)[0] as Value, 1 / ranks)],
  },
});
