/**
 * The numbers of the whole batch that micro-batches need before they are computed (the counts of
 * labels, for losses with several denominators), as tasks of two graphs: one for the part of a
 * micro-batch, and one for the whole from all parts.
 */
import { and, cast, equal, reduceSum, reshape, slice, where } from "../functional/index.ts";
import { type Graph, typeOf, type Value } from "../graph/index.ts";
import { REPLICATED } from "../mesh/index.ts";
import { newBuilder } from "../ops/index.ts";
import { elementCount, type TensorType } from "../tensor/index.ts";
import type { BatchSums, Totals } from "./batch/batch-sums.ts";
import { addTail, vectorGraph, vectorType } from "./batch/whole-batch.ts";
import { buildNamed } from "./named.ts";
import { givenName, type StepBuilder } from "./step-builder.ts";
import { MICRO_BATCH, valueName } from "./step-graph.ts";

/**
 * The value that replaces the counts if all of them are 0. It is 0 itself, unless the trainer wants
 * to know whether the batch is otherwise right.
 */
const INSTEAD = "instead";
/** The value that is 1 if all counts are 0, and 0 otherwise. */
const NONE = "none";
const STAGE = "counted";
/**
 * The two values of a step that say whether its batch holds anything that counts. They exist only
 * if something is divided by counts.
 */
export const COUNTED = { instead: valueName(STAGE, INSTEAD), none: valueName(STAGE, NONE) };

/** The graph that computes what a micro-batch contributes. */
export const TOTALS = "totals";

/**
 * The graph from the vectors of all micro-batches to the values that each micro-batch is given: the
 * same sums in the same order on every rank. If something is divided by counts, it also has the
 * input `instead` and the output `none`.
 */
function wholeTotals({ terms, tail, inputs, counts }: Totals, all: TensorType): Graph {
  const builder = newBuilder("totals of the batch");
  const sum = reduceSum(builder.input("totals", all), { axes: [0], keepdims: false });
  let end = 0;
  const sums = terms.map(({ type }) => {
    const start = end;
    end += elementCount(type.shape);
    return reshape(slice(sum, [{ axis: 0, start, end }]), type.shape);
  });
  const outputs = new Map<string, Value>();
  if (counts.length > 0) {
    const zero = counts.map((index) => equal(sums[index] as Value, 0));
    const none = zero.reduce((a, b) => and(a, b));
    const { dtype } = all;
    const instead = reshape(builder.input(INSTEAD, { dtype, shape: [1] }), []);
    for (const index of counts) sums[index] = where(none, instead, sums[index] as Value);
    outputs.set(NONE, reshape(cast(none, dtype), [1]));
  }
  const results = addTail(builder, tail, terms, sums);
  for (const [index, name] of inputs.entries()) outputs.set(name, results[index] as Value);
  return buildNamed(builder, outputs);
}

/**
 * Adds the tasks that compute the totals of the whole batch. Only losses with several denominators
 * have totals.
 */
export function addTotals(step: StepBuilder, { totals }: BatchSums): void {
  if (totals === undefined) return;
  const width = vectorType(totals.terms);
  const all = { dtype: width.dtype, shape: [step.microBatches, ...width.shape] };
  step.graphs.set(TOTALS, vectorGraph(totals.graph, totals.terms, "totals"));
  step.graphs.set("totals of the batch", wholeTotals(totals, all));
  const parts = step.value("total", "parts", all, { [MICRO_BATCH]: { shard: 0 } });
  const together = step.value("total", "all parts", all);
  const given = totals.inputs.map((name, index) =>
    step.value("total", name, typeOf(totals.tail, totals.tail.outputs[index] as string)),
  );
  const one = { dtype: width.dtype, shape: [1] };
  const isCounted = totals.counts.length > 0;
  const instead = isCounted ? [step.value("control", INSTEAD, one, REPLICATED, STAGE)] : [];
  const none = isCounted ? [step.value("total", NONE, one, REPLICATED, STAGE)] : [];
  const inputs = totals.graph.inputs.map((name) => givenName(step, name));
  step.tasks.push(
    {
      kind: "compute",
      name: "totals",
      graph: TOTALS,
      each: MICRO_BATCH,
      inputs,
      outputs: [parts],
    },
    {
      kind: "gather",
      name: "totals to all",
      each: "step",
      axes: [MICRO_BATCH],
      inputs: [parts],
      outputs: [together],
    },
    {
      kind: "compute",
      name: "totals of the batch",
      graph: "totals of the batch",
      each: "step",
      inputs: [together, ...instead],
      outputs: [...none, ...given],
    },
  );
}
