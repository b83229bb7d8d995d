import { flip, full, gather, mul, reshape, sub, swapLast } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount, tensorFrom } from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { floatType } from "../shared.ts";

/** The determinant of each matrix (…, n, n). */
export const det: OperatorDefinition = {
  name: "Det",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    if (shape.length < 2 || shape.at(-1) !== shape.at(-2)) context.fail("takes square matrices");
    return [{ dtype, shape: shape.slice(0, -2) }];
  },
  gradient: (context) => {
    const x = context.input(0);
    const dy = reshape(context.gradient(0), [...x.shape.slice(0, -2), 1, 1]);
    return [mul(cofactors(context), dy)];
  },
  flops: (context) => {
    const { shape } = context.input(0);
    return (2 / 3) * elementCount(shape) * (shape.at(-1) as number);
  },
  inPlace: false,
  divisions: (context) =>
    context
      .input(0)
      .shape.slice(0, -2)
      .flatMap((_, dim) => along(context, { inputs: [dim], outputs: [dim] })),
};

/**
 * The derivatives of the determinant. For larger matrices they come from the inverse, so those must
 * not be singular (the result would be NaN).
 */
function cofactors(context: GradientContext): Value {
  const x = context.input(0);
  const { builder, dtype, shape } = x;
  switch (shape.at(-1)) {
    case 1:
      return full(builder, dtype, shape, 1);
    case 2: {
      const signs = builder.constant(tensorFrom(dtype, [2, 2], [1, -1, -1, 1]));
      return mul(flip(x, [-1, -2]), signs);
    }
    case 3: {
      // The cofactor at row i and column j is made of the elements in the next rows and columns, in
      // cyclic order.
      const one = builder.ints([1, 2, 0]);
      const two = builder.ints([2, 0, 1]);
      const at = (rows: Value, columns: Value) => gather(gather(x, rows, -2), columns, -1);
      return sub(mul(at(one, one), at(two, two)), mul(at(one, two), at(two, one)));
    }
    default: {
      const y = reshape(context.output(0), [...shape.slice(0, -2), 1, 1]);
      return mul(swapLast(builder.one("com.microsoft::Inverse", [x])), y);
    }
  }
}
