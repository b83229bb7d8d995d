import { reduceSum, reshape } from "../../functional/index.ts";
import type { Division, LocalContext, OperatorDefinition } from "../../graph/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Dims that are repeated more often than this are not cut into sections. */
const MOST_SECTIONS = 64;

/** The input repeated along each dim as often as input 1 says. */
export const tile: OperatorDefinition = {
  name: "Tile",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const repeats = context.constantNumbers(1);
    if (repeats.length !== shape.length || repeats.some((count) => count < 0)) {
      context.fail(`repeats [${repeats.join(", ")}] must be one count for each dim`);
    }
    return [{ dtype, shape: shape.map((size, dim) => size * (repeats[dim] as number)) }];
  },
  gradient: (context) => {
    const { shape } = context.input(0);
    const repeats = context.constantNumbers(1);
    const apart: number[] = [];
    const axes: number[] = [];
    for (const [dim, size] of shape.entries()) {
      if (repeats[dim] !== 1) {
        axes.push(apart.length);
        apart.push(repeats[dim] as number);
      }
      apart.push(size);
    }
    const summed = reduceSum(reshape(context.gradient(0), apart), { axes, keepdims: false });
    return [reshape(summed, shape), undefined];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const repeats = context.constantNumbers(1);
    const cuts = shape.flatMap((size, dim): Division[] => {
      const count = repeats[dim] as number;
      if (count === 1) return along(context, { inputs: [dim, undefined], outputs: [dim] });
      const own = sectionedDim(dim, size, [1], context.ranks);
      const sections = Array.from({ length: count }, () => size);
      const isShort = count > 0 && count <= MOST_SECTIONS;
      const repeated =
        own && isShort ? [divisionOf([own, undefined], [{ shard: dim, sections }])] : [];
      if (size === 0 || count === 0 || count % context.ranks !== 0) return repeated;
      const fewer = repeats.with(dim, count / context.ranks);
      const local = ({ input, builder, again }: LocalContext) =>
        again([input(0), builder.ints(fewer)]);
      return [...repeated, divisionOf([undefined, undefined], [{ shard: dim }], local)];
    });
    return [...cuts, ...linearDivisions(context, "first")];
  },
};
