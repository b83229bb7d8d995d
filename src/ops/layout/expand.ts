import { sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { broadcastShapes } from "../../tensor/index.ts";
import { alignedDim, along, withSizes } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Broadcasts input 0 with the shape in input 1, in both directions. */
export const expand: OperatorDefinition = {
  name: "Expand",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const result = broadcastShapes(shape, context.constantNumbers(1));
    return [{ dtype, shape: result ?? context.fail("shapes do not broadcast") }];
  },
  gradient: (context) => [sumTo(context.gradient(0), context.input(0).shape), undefined],
  flops: noFlops,
  moves: true,
  inPlace: false,
  batch: { linear: "first" },
  divisions: (context) => {
    const { shape } = context.input(0);
    const result = context.outputs[0]?.shape ?? [];
    // A dim that is repeated is there as often as a rank needs it.
    return result.flatMap((size, dim) =>
      along(context, {
        inputs: [alignedDim(shape, result.length, dim, size), undefined],
        outputs: [dim],
        local: withSizes(1),
      }),
    );
  },
};
