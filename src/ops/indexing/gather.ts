import { pad, reshape, where } from "../../functional/index.ts";
import type {
  GradientContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import { orFirst, ownIndices } from "./own-part.ts";
import { alongAxis, axisOf, checkIndices, dimOf, picksAlongAxis } from "./shared.ts";
import { sumRows } from "./sum-rows.ts";

/** Rows of input 0 along `axis` at the indices in input 1: an embedding, if the axis is 0. */
export const gather: OperatorDefinition = {
  name: "Gather",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: 0 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const axis = axisOf(context, shape);
    return [{ dtype, shape: shape.toSpliced(axis, 1, ...checkIndices(context, 1)) }];
  },
  gradient: (context) => [context.needs(0) ? tableGradient(context) : undefined, undefined],
  flops: noFlops,
  moves: true,
  indices: (context) => alongAxis(context, true),
  inPlace: false,
  batch: { picks: picksAlongAxis },
  divisions: (context) => {
    const { shape } = context.input(0);
    const axis = axisOf(context, shape);
    const indices = context.input(1).shape;
    const byIndex = indices.flatMap((_, dim) =>
      along(context, { inputs: [undefined, dim], outputs: [axis + dim] }),
    );
    const others = shape.flatMap((_, dim) => {
      const to = dim < axis ? dim : dim - 1 + indices.length;
      return dim === axis ? [] : along(context, { inputs: [dim, undefined], outputs: [to] });
    });
    const own = sectionedDim(axis, shape[axis] as number, [1], context.ranks);
    const parts = own && divisionOf([own, undefined], ["partial"], (rank) => [ownRows(rank, axis)]);
    return [...byIndex, ...others, ...(parts ? [parts] : []), ...linearDivisions(context, "first")];
  },
};

/** The rows of this rank's part of the data, and zeros for those of others. */
function ownRows(context: LocalContext, axis: number): Value {
  const [data, indices] = [context.input(0), context.input(1)];
  const found = ownIndices(context, indices, data.shape[axis] as number);
  const [rows] = context.again([data, orFirst(found)]) as readonly [Value];
  const behind = data.shape.slice(axis + 1).map(() => 1);
  return where(reshape(found.isOwn, [...indices.shape, ...behind]), rows, 0);
}

function tableGradient(context: GradientContext): Value {
  const [table, indices, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const axis = dimOf(context, table.shape);
  const places = table.shape[axis] as number;
  const count = elementCount(indices.shape);
  if (count === 1 && context.constant(1) !== undefined) {
    const [given] = context.constantNumbers(1) as [number];
    const at = given < 0 ? given + places : given;
    const zeros = table.shape.map(() => 0);
    const row = reshape(dy, table.shape.with(axis, 1));
    return pad(row, zeros.with(axis, at), zeros.with(axis, places - 1 - at));
  }
  const outer = elementCount(table.shape.slice(0, axis));
  const inner = elementCount(table.shape.slice(axis + 1));
  const sums = sumRows(reshape(dy, [outer, count, inner]), reshape(indices, [count]), places);
  return reshape(sums, table.shape);
}
