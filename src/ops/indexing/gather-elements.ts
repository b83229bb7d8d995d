import { where } from "../../functional/index.ts";
import type { LocalContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import { orFirst, ownIndices } from "./own-part.ts";
import { alongAxis, axisOf, checkIndices, dimOf, picksAlongAxis, sumAt } from "./shared.ts";

/**
 * For each element of input 1, the element of input 0 at the same position, but at that index along
 * `axis`.
 */
export const gatherElements: OperatorDefinition = {
  name: "GatherElements",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: 0 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const axis = axisOf(context, shape);
    const wanted = checkIndices(context, 1);
    const fits = wanted.every((size, dim) => dim === axis || size <= (shape[dim] ?? 0));
    if (wanted.length !== shape.length || !fits) {
      context.fail("indices have as many dims as the data, and none longer but the axis");
    }
    return [{ dtype, shape: wanted }];
  },
  gradient: (context) => {
    const [x, indices, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const axis = dimOf(context, x.shape);
    return [sumAt(indices, dy, axis, x.shape), undefined];
  },
  flops: noFlops,
  moves: true,
  // Gather and scatter of PyTorch and other frameworks refuse negative indices.
  indices: (context) => alongAxis(context, false),
  inPlace: false,
  batch: { picks: picksAlongAxis },
  divisions: (context) => {
    const [shape, indices] = [context.input(0).shape, context.input(1).shape];
    const axis = axisOf(context, shape);
    const others = shape.flatMap((size, dim) =>
      dim === axis || indices[dim] !== size
        ? []
        : along(context, { inputs: [dim, dim], outputs: [dim] }),
    );
    const own = sectionedDim(axis, shape[axis] as number, [1], context.ranks);
    const parts =
      own && divisionOf([own, undefined], ["partial"], (rank) => [ownElements(rank, axis)]);
    return [
      ...others,
      ...along(context, { inputs: [undefined, axis], outputs: [axis] }),
      ...(parts ? [parts] : []),
      ...linearDivisions(context, "first"),
    ];
  },
};

/** The elements of this rank's part of the data, and zeros for those of others. */
function ownElements(context: LocalContext, axis: number): Value {
  const [data, indices] = [context.input(0), context.input(1)];
  const found = ownIndices(context, indices, data.shape[axis] as number);
  const [elements] = context.again([data, orFirst(found)]) as readonly [Value];
  return where(found.isOwn, elements, 0);
}
