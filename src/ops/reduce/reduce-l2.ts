import { div, equal, mul, sqrt, where } from "../../functional/index.ts";
import { keptGradient, keptOutput, reduction } from "./shared.ts";

/**
 * The Euclidean norm over the dims in input 1. The gradient is 0 where the norm is 0 (as in
 * PyTorch).
 */
export const reduceL2 = reduction({
  name: "ReduceL2",
  gradient: (context) => {
    const norm = keptOutput(context);
    const divisor = where(equal(norm, 0), 1, norm);
    return mul(context.input(0), div(keptGradient(context), divisor));
  },
  flops: 2,
  idempotent: false,
  batch: {
    reduces: ({ builder, inputs, attributes }) => {
      const keepdims = attributes.number("keepdims");
      return sqrt(builder.one("ReduceSumSquare", inputs, { keepdims }));
    },
  },
});
