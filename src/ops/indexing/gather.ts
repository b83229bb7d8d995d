import { pad, reshape } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";
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
};

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
