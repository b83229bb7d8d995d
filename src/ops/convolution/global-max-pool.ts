import { argMax, reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, exceptAlong } from "../divisions.ts";
import { sumAt } from "../indexing/index.ts";
import { globalPoolType, spatialDims } from "./pool.ts";

/** The maximum over all spatial dims. The gradient goes to the first of several equal maxima. */
export const globalMaxPool: OperatorDefinition = {
  name: "GlobalMaxPool",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [globalPoolType(context)],
  gradient: (context) => {
    const x = context.input(0);
    const inner = elementCount(x.shape.slice(2));
    const lines = reshape(x, [elementCount(x.shape) / inner, inner]);
    const dy = reshape(context.gradient(0), [lines.shape[0] as number, 1]);
    const spread = sumAt(argMax(lines, 1), dy, 1, lines.shape);
    return [reshape(spread, x.shape)];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
  divisions: (context) => {
    const spatial = spatialDims(context.input(0).shape);
    const parts = spatial.flatMap((dim) =>
      along(context, { inputs: [dim], outputs: ["partial max"] }),
    );
    return [...exceptAlong(context, spatial), ...parts];
  },
};
