/**
 * What micro-batches must know of the whole batch before they are computed: each rank sums up its own, all have all of them, and
 * each makes the same numbers of them. Only for losses with several denominators; most need none.
 */
import { and, cast, concat, equal, reduceSum, reshape, slice, where } from "../functional/index.ts";
import { typeOf, type Value } from "../graph/index.ts";
import { extendGraph, newBuilder } from "../ops/index.ts";
import { bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import type { Totals } from "./batch-sums.ts";
import { type Layout, planLayout } from "./layout.ts";
import { buildNamed } from "./named.ts";
import type { ProgramBuilder, Run, Stage, TensorRef } from "./program.ts";
import { refsOf } from "./refs.ts";
import type { Range } from "./shares.ts";
import { addTail, wideType } from "./whole-batch.ts";

export interface TotalsPlan {
  /** Where what is given to every micro-batch lies, by the input of its graph. */
  readonly given: ReadonlyMap<string, TensorRef>;
  /** Undefined where nothing is divided by a count. */
  readonly counted: Counted | undefined;
  stages(inputs: (microBatch: number, names: readonly string[]) => Run["inputs"]): Stage[];
}

/** How it is found out whether the batch holds anything that counts. */
export interface Counted {
  /** Afterwards 1 where all counts are 0, else 0. */
  readonly none: TensorRef;
  /** Written before: what stands for the counts where all are 0. It is 0, so that the loss is what it is. */
  readonly instead: TensorRef;
}

export interface TotalsOptions {
  readonly rank: number;
  /** Of all ranks. */
  readonly ranges: readonly Range[];
}

/** Nothing for a loss that needs none. */
export function planTotals(
  program: ProgramBuilder,
  totals: Totals | undefined,
  { rank, ranges }: TotalsOptions,
): TotalsPlan {
  if (totals === undefined) return { given: new Map(), counted: undefined, stages: () => [] };
  const layout = givenLayout(totals);
  const buffer = program.buffer("totals.given", layout.byteLength);
  const given = refsOf(layout, buffer);
  const dtype = wideType(totals.terms.map(({ type }) => type.dtype));
  const width = totals.terms.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  const counts = ranges.map(({ count }) => count * width);
  const count = counts.reduce((sum, own) => sum + own, 0);
  const own: TensorType = { dtype, shape: [width] };
  const all: TensorType = { dtype, shape: [count / width, width] };
  program.buffer("totals", count * bytesPerElement(dtype));
  const number = (name: string): TensorRef => ({
    buffer: program.buffer(name, bytesPerElement(dtype)),
    byteOffset: 0,
    type: { dtype, shape: [1] },
  });
  const counted =
    totals.counts.length === 0
      ? undefined
      : { none: number("totals.none"), instead: number("totals.instead") };
  const isShared = ranges.length > 1;
  if (isShared) program.shared.add("totals");
  const part = program.graph("totals", 1, () => partGraph(totals, own));
  const whole = program.graph("totals of the batch", 1, () => wholeGraph(totals, all));
  const { inputs: needed } = totals.graph;
  return {
    given,
    counted,
    stages(inputs) {
      const { first, count: mine } = ranges[rank] as Range;
      const runs = Array.from({ length: mine }, (_, index): Run => {
        const byteOffset = (first + index) * width * bytesPerElement(dtype);
        const outputs = { totals: { buffer: "totals", byteOffset, type: own } };
        return { graph: part, inputs: inputs(index, needed), outputs };
      });
      const from = {
        totals: { buffer: "totals", byteOffset: 0, type: all },
        ...(counted && { instead: counted.instead }),
      };
      const outputs = { ...Object.fromEntries(given), ...(counted && { none: counted.none }) };
      return [
        { name: "totals", runs, mode: "parallel" },
        ...(isShared ? [gather(counts, count, dtype)] : []),
        {
          name: "totals of the batch",
          runs: [{ graph: whole, inputs: from, outputs }],
          mode: "small",
        },
      ];
    },
  };
}

function gather(counts: readonly number[], count: number, dtype: TensorType["dtype"]): Stage {
  const call = { kind: "allGather" as const, count, counts, dtype };
  const data = { buffer: "totals", byteOffset: 0 };
  return { name: "totals to all", mode: "collective", axis: "all", call, data };
}

function givenLayout({ inputs, tail }: Totals): Layout {
  const items = inputs.map((name, index) => ({
    name,
    type: typeOf(tail, tail.outputs[index] as string),
    group: "given",
  }));
  return planLayout(items, 64);
}

/** The terms of a micro-batch as one vector. */
function partGraph({ graph, terms }: Totals, { dtype }: TensorType) {
  const builder = extendGraph(graph);
  const parts = terms.map(({ output, type }) =>
    reshape(cast(builder.value(output), dtype), [elementCount(type.shape)]),
  );
  return buildNamed(builder, new Map([["totals", concat(parts, 0)]]));
}

/** From the vectors of all micro-batches to what is given to each: the same sums in the same order on every rank. */
function wholeGraph({ terms, tail, inputs, counts }: Totals, all: TensorType) {
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
    const instead = reshape(builder.input("instead", { dtype, shape: [1] }), []);
    for (const index of counts) sums[index] = where(none, instead, sums[index] as Value);
    outputs.set("none", reshape(cast(none, dtype), [1]));
  }
  const results = addTail(builder, tail, terms, sums);
  for (const [index, name] of inputs.entries()) outputs.set(name, results[index] as Value);
  return buildNamed(builder, outputs);
}
