/**
 * What micro-batches must know of the whole batch before they are computed (the numbers of labels, for losses with several
 * denominators), as two graphs: a micro-batch's part, and the whole from all parts.
 */
import { cast, concat, reduceSum, reshape, slice } from "../functional/index.ts";
import type { Graph, Value } from "../graph/index.ts";
import { extendGraph, newBuilder } from "../ops/index.ts";
import { elementCount, type TensorType } from "../tensor/index.ts";
import type { Totals } from "./batch/batch-sums.ts";
import { addTail, wideType } from "./batch/whole-batch.ts";
import { buildNamed } from "./named.ts";

/** Of the terms of a micro-batch as one vector. */
export function totalsWidth({ terms }: Totals): TensorType {
  const width = terms.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  return { dtype: wideType(terms.map(({ type }) => type.dtype)), shape: [width] };
}

/** From what the terms are made of to the vector `totals`. */
export function partTotals(totals: Totals): Graph {
  const { graph, terms } = totals;
  const { dtype } = totalsWidth(totals);
  const builder = extendGraph(graph);
  const parts = terms.map(({ output, type }) =>
    reshape(cast(builder.value(output), dtype), [elementCount(type.shape)]),
  );
  return buildNamed(builder, new Map([["totals", concat(parts, 0)]]));
}

/** From the vectors of all micro-batches to what is given to each: the same sums in the same order on every rank. */
export function wholeTotals({ terms, tail, inputs }: Totals, all: TensorType): Graph {
  const builder = newBuilder("totals of the batch");
  const sum = reduceSum(builder.input("totals", all), { axes: [0], keepdims: false });
  let end = 0;
  const sums = terms.map(({ type }) => {
    const start = end;
    end += elementCount(type.shape);
    return reshape(slice(sum, [{ axis: 0, start, end }]), type.shape);
  });
  const results = addTail(builder, tail, terms, sums);
  return buildNamed(builder, new Map(inputs.map((name, index) => [name, results[index] as Value])));
}
