import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";

/** Refused: the length of its result depends on the data, but shapes are static here. */
export const nonZero: OperatorDefinition = {
  name: "NonZero",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) =>
    context.fail(
      "the size of its result depends on the data",
      "Shapes are static: use Where with a mask in place of NonZero and Gather.",
    ),
  gradient: { zero: "positions are integers" },
  flops: noFlops,
  inPlace: false,
  divisions: { never: "the size of its result depends on the data" },
};
