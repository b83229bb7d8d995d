import type { OperatorDefinition } from "../../graph/index.ts";
import { exceptAlong, linearDivisions } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * The upper (or lower) triangle of the last two dims from diagonal k (input 1) on; zeros elsewhere.
 */
export const trilu: OperatorDefinition = {
  name: "Trilu",
  inputs: [1, 2],
  outputs: [1, 1],
  attributes: { upper: { kind: "int", default: 1 } },
  infer: (context) => {
    const type = context.input(0);
    if (type.shape.length < 2) context.fail("takes matrices");
    return [type];
  },
  gradient: (context) => {
    const upper = context.attributes.number("upper");
    return [context.builder.one("Trilu", [context.gradient(0), context.inputs[1]], { upper })];
  },
  flops: noFlops,
  inPlace: false,
  divisions: (context) => {
    const { length } = context.input(0).shape;
    return [
      ...exceptAlong(context, [length - 2, length - 1]),
      ...linearDivisions(context, "first"),
    ];
  },
};
