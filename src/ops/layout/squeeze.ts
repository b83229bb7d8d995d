import { reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { normalizeDim } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";
import { sameElements } from "./same-elements.ts";

/** Removes the dims in input 1, which have size 1; without input 1, all dims of size 1. */
export const squeeze: OperatorDefinition = {
  name: "Squeeze",
  inputs: [1, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    if (context.inputs[1] === undefined) {
      return [{ dtype, shape: shape.filter((size) => size !== 1) }];
    }
    const axes = context.constantNumbers(1);
    const dims = axes.map((axis) => normalizeDim(axis, shape.length));
    if (dims.some((dim) => dim === undefined || shape[dim] !== 1)) {
      context.fail(`the dims [${axes.join(", ")}] must be there and of size 1`);
    }
    return [{ dtype, shape: shape.filter((_, dim) => !dims.includes(dim)) }];
  },
  gradient: (context) => [reshape(context.gradient(0), context.input(0).shape), undefined],
  flops: noFlops,
  moves: true,
  inPlace: true,
  batch: { linear: "first" },
  divisions: (context) => sameElements(context),
};
