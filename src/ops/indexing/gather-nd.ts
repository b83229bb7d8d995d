import { flatIndices, reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import { checkIndices, picksTuples, tuplesInto } from "./shared.ts";
import { sumRows } from "./sum-rows.ts";

/**
 * Parts of input 0 at the index tuples in the last dim of input 1; the first `batch_dims` dims are
 * shared.
 */
export const gatherND: OperatorDefinition = {
  name: "GatherND",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { batch_dims: { kind: "int", default: 0 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const tuples = checkIndices(context, 1);
    const batch = context.attributes.number("batch_dims");
    const depth = batch + (tuples.at(-1) ?? Infinity);
    const agrees = tuples.slice(0, batch).every((size, dim) => size === shape[dim]);
    if (!agrees || batch >= tuples.length || depth > shape.length) {
      context.fail(`the tuples do not fit the data (${batch} shared dims)`);
    }
    return [{ dtype, shape: [...tuples.slice(0, -1), ...shape.slice(depth)] }];
  },
  gradient: (context) => {
    const [x, tuples, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const batch = context.attributes.number("batch_dims");
    const depth = batch + (tuples.shape.at(-1) as number);
    const places = elementCount(x.shape.slice(0, depth));
    const indices = flatIndices(tuples, x.shape.slice(0, depth), batch);
    const rows = [1, elementCount(indices.shape), elementCount(x.shape.slice(depth))];
    return [reshape(sumRows(reshape(dy, rows), indices, places), x.shape), undefined];
  },
  flops: noFlops,
  moves: true,
  indices: (context) => tuplesInto(context, context.attributes.number("batch_dims")),
  inPlace: false,
  batch: { picks: (context) => picksTuples(context, context.attributes.number("batch_dims")) },
  divisions: (context) => {
    const { shape } = context.input(0);
    const tuples = context.input(1).shape;
    const shared = context.attributes.number("batch_dims");
    const depth = shared + (tuples.at(-1) as number);
    const behind = tuples.length - 1 - depth;
    return [
      ...tuples.slice(0, -1).flatMap((_, dim) => {
        const own = dim < shared ? dim : undefined;
        return along(context, { inputs: [own, dim], outputs: [dim] });
      }),
      ...shape.flatMap((_, dim) =>
        dim < depth ? [] : along(context, { inputs: [dim, undefined], outputs: [dim + behind] }),
      ),
      ...linearDivisions(context, "first"),
    ];
  },
};
