import { flatIndices, reshape, where } from "../../functional/index.ts";
import type { LocalContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import {
  componentOf,
  orFirst,
  ownIndices,
  rowsOf,
  withComponent,
  withOwnRows,
} from "./own-part.ts";
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
    const [shape, tuples] = [context.input(0).shape, context.input(1).shape];
    const batch = context.attributes.number("batch_dims");
    const depth = batch + (tuples.at(-1) as number);
    const byTuple = tuples
      .slice(0, -1)
      .flatMap((_, dim) =>
        along(context, { inputs: [dim < batch ? dim : undefined, dim], outputs: [dim] }),
      );
    const byData = shape.flatMap((size, dim) => {
      if (dim < batch) return [];
      const to = dim - depth + tuples.length - 1;
      if (dim >= depth) return along(context, { inputs: [dim, undefined], outputs: [to] });
      const own = sectionedDim(dim, size, [1], context.ranks);
      const local = (rank: LocalContext) => [ownTuples(rank, dim, dim - batch)];
      return own ? [divisionOf([own, undefined], ["partial"], local)] : [];
    });
    const rows = batch === 0 ? rowsOf(context) : undefined;
    const byRow =
      rows &&
      divisionOf([rows, rows], [rows], ({ input, again }) =>
        again([input(0), withOwnRows(input(1))]),
      );
    return [...byTuple, ...byData, ...(byRow ? [byRow] : []), ...linearDivisions(context, "first")];
  },
};

/** What lies in this rank's part of a dim, and zeros for what lies in those of others. */
function ownTuples(context: LocalContext, dim: number, component: number): Value {
  const [data, tuples] = [context.input(0), context.input(1)];
  const found = ownIndices(context, componentOf(tuples, component), data.shape[dim] as number);
  const own = withComponent(tuples, component, orFirst(found));
  const [parts] = context.again([data, own]) as readonly [Value];
  const outer = tuples.shape.slice(0, -1);
  const behind = parts.shape.slice(outer.length).map(() => 1);
  return where(reshape(found.isOwn, [...outer, ...behind]), parts, 0);
}
