import type { OperatorDefinition } from "../../graph/index.ts";
import { along, withSizes } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * A tensor of the shape in input 0, filled with the one element of `value`. Default: 0 in float32.
 */
export const constantOfShape: OperatorDefinition = {
  name: "ConstantOfShape",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { value: { kind: "tensor", default: null } },
  infer: (context) => {
    const { attributes } = context;
    const dtype = attributes.has("value") ? attributes.tensor("value").dtype : "float32";
    return [{ dtype, shape: context.constantNumbers(0) }];
  },
  gradient: { zero: "a constant" },
  flops: noFlops,
  inPlace: false,
  divisions: (context) =>
    (context.outputs[0]?.shape ?? []).flatMap((_, dim) =>
      along(context, { inputs: [undefined], outputs: [dim], local: withSizes(0) }),
    ),
};
