import { matmul, neg, swapLast } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { floatType } from "../shared.ts";

/** The inverse of each matrix (…, n, n). PyTorch exports `torch.linalg.inv` as this operator. */
export const inverse: OperatorDefinition = {
  name: "com.microsoft::Inverse",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const type = floatType(context);
    const { shape } = type;
    if (shape.length < 2 || shape.at(-1) !== shape.at(-2)) context.fail("takes square matrices");
    return [type];
  },
  // d(X⁻¹) = −X⁻¹ dX X⁻¹
  gradient: (context) => {
    const turned = swapLast(context.output(0));
    return [neg(matmul(matmul(turned, context.gradient(0)), turned))];
  },
  flops: (context) => {
    const { shape } = context.input(0);
    return 2 * elementCount(shape) * (shape.at(-1) as number);
  },
  inPlace: false,
  divisions: (context) => {
    const rank = context.input(0).shape.length;
    return exceptAlong(context, [rank - 2, rank - 1]);
  },
};
