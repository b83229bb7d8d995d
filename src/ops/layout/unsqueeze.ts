import { reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { normalizeDim } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";
import { sameElements } from "./same-elements.ts";

/** Inserts dims of size 1 at the positions in input 1, which count in the result. */
export const unsqueeze: OperatorDefinition = {
  name: "Unsqueeze",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const axes = context.constantNumbers(1);
    const rank = shape.length + axes.length;
    const added = new Set(axes.map((axis) => normalizeDim(axis, rank)));
    if (added.has(undefined) || added.size !== axes.length) {
      context.fail(`axes [${axes.join(", ")}] are out of range or given twice`);
    }
    const sizes = [...shape];
    const result = Array.from({ length: rank }, (_, dim) =>
      added.has(dim) ? 1 : (sizes.shift() as number),
    );
    return [{ dtype, shape: result }];
  },
  gradient: (context) => [reshape(context.gradient(0), context.input(0).shape), undefined],
  flops: noFlops,
  moves: true,
  inPlace: true,
  batch: { linear: "first" },
  divisions: (context) => sameElements(context),
};
