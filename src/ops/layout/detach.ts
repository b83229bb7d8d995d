import { cast, mul, sub } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { sameShape } from "../../tensor/index.ts";
import { byElement, linearDivisions } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * Input 0 unchanged, but no gradient flows back through it: PyTorch's `detach`. With a mask (bool,
 * with the shape of input 0 except for a last dim of 1) that applies only where the mask is true,
 * such as to rows of padding in embeddings.
 */
export const detach: OperatorDefinition = {
  name: "lockstep::Detach",
  inputs: [1, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const type = context.input(0);
    if (context.inputs[1] === undefined) return [type];
    const mask = context.input(1);
    if (mask.dtype !== "bool") context.failType("the mask must be bool");
    if (!sameShape(mask.shape, [...type.shape.slice(0, -1), 1])) {
      context.fail("the mask must have the shape of input 0, but for a last dim of 1");
    }
    return [type];
  },
  gradient: (context) => {
    if (context.inputs[1] === undefined) return [undefined];
    const dy = context.gradient(0);
    const kept = sub(dy.builder.scalar(dy.dtype, 1), cast(context.input(1), dy.dtype));
    return [mul(dy, kept), undefined];
  },
  flops: noFlops,
  inPlace: false,
  divisions: (context) => [...byElement(context), ...linearDivisions(context, "first")],
};
