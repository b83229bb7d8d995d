import { reduceSum, reshape } from "../../functional/index.ts";
import type { Division, OperatorDefinition } from "../../graph/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";

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
    const repeated = (dim: number): Division[] => {
      const on = sectionedDim(dim, shape[dim] as number, [1], context.ranks);
      const count = repeats[dim] as number;
      if (on === undefined || count === 0) return [];
      const sections = new Array<number>(count).fill(shape[dim] as number);
      return [divisionOf([on, undefined], [{ shard: dim, sections }])];
    };
    return [
      ...shape.flatMap((_, dim) =>
        repeats[dim] === 1
          ? along(context, { inputs: [dim, undefined], outputs: [dim] })
          : repeated(dim),
      ),
      ...linearDivisions(context, "first"),
    ];
  },
};
