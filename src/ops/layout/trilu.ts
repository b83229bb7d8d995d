import { add, mul } from "../../functional/index.ts";
import type { LocalContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { divisionOf, exceptAlong, linearDivisions, sectionedDim } from "../divisions.ts";
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
    const { shape } = context.input(0);
    const others = context.inputs.slice(1).map(() => undefined);
    const [row, column] = [shape.length - 2, shape.length - 1];
    const cuts = [row, column].flatMap((dim) => {
      const own = sectionedDim(dim, shape[dim] as number, [1], context.ranks);
      if (own === undefined) return [];
      const local = (rank: LocalContext) => rank.again([rank.input(0), ownDiagonal(rank, dim)]);
      return [divisionOf([own, ...others], [own], local)];
    });
    return [...exceptAlong(context, [row, column]), ...cuts, ...linearDivisions(context, "first")];
  },
};

/** The diagonal as it is counted in a rank's part of the rows or columns. */
function ownDiagonal({ input, inputs, place }: LocalContext, dim: number): Value {
  const { shape } = input(0);
  const first = mul(place(), shape[dim] as number);
  const shift = dim === shape.length - 2 ? first : mul(first, -1);
  return inputs[1] === undefined ? shift : add(inputs[1], shift);
}
