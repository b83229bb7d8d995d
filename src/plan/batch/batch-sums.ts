/**
 * Expresses a number of a whole batch (its loss, a measure) as a function of sums over the parts of
 * the batch. For example, a loss that is a mean over labelled elements is the sum of their losses
 * divided by their number, however the batch is divided.
 */
import { cast } from "../../functional/index.ts";
import { type Graph, sliceGraph, type Value, withOutputs } from "../../graph/index.ts";
import { operatorTable } from "../../ops/index.ts";
import type { TensorType } from "../../tensor/index.ts";
import { renameValues } from "../named.ts";
import type { BatchKindsOptions, Pair } from "./batch-kind.ts";
import { BatchKinds } from "./batch-kinds.ts";
import { sizeOf } from "./model-batch.ts";

/** A value whose sum over the parts is needed for the whole batch. */
export interface Term {
  /** The name of an output of the graph of a part. */
  readonly output: string;
  readonly type: TensorType;
  /** The value of the whole batch is the sum over its parts times this factor. */
  readonly factor: number;
  /** Whether gradients flow through it. */
  readonly trained: boolean;
}

/** A number of the whole batch as a function of sums over its parts. */
export interface Sums {
  readonly terms: readonly Term[];
  /**
   * The graph from the terms of the whole batch (inputs `term.0`, …) to the number; undefined if
   * the number is the only term.
   */
  readonly tail: Graph | undefined;
  /**
   * The indices of terms that the number is divided by. If one of them is 0, the batch holds
   * nothing that counts.
   */
  readonly counts: readonly number[];
}

/**
 * The values of the whole batch that must be known before any part is computed, such as the number
 * of labels. Only if all of `counts` are 0, the batch holds nothing that counts.
 */
export interface Totals extends Sums {
  /** The graph of a part. Its outputs are summed over the parts. */
  readonly graph: Graph;
  /** The graph to the values that each part is given, in the order of `inputs`. */
  readonly tail: Graph;
  /** The names of the inputs of the graph of a part. */
  readonly inputs: readonly string[];
}

export interface BatchSums extends Sums {
  /** The graph of a part. Its outputs are the terms, followed by `kept`. */
  readonly graph: Graph;
  readonly totals: Totals | undefined;
}

/** Why a number cannot be computed from parts of a batch: a sentence without its end. */
export interface Inseparable {
  readonly reason: string;
}

export function isInseparable(found: object): found is Inseparable {
  return "reason" in found;
}

export interface BatchSumsOptions extends Omit<BatchKindsOptions, "exactMeans"> {
  /** The outputs of the graph of a part that are kept. */
  readonly kept: readonly string[];
}

/** Plans how output `of` of a model follows from the parts of a batch. */
export function planBatchSums(of: string, options: BatchSumsOptions): BatchSums | Inseparable {
  const { part, kept, isVouched = false, totalsFirst = false } = options;
  const kinds = new BatchKinds([of, ...kept], options);
  if (!kinds.isMatched && !isVouched && sizeOf(part) === 1) return planSingles(of, options);
  const ways = waysOf(kinds, of);
  const trained = isInseparable(ways) ? [] : ways.ends.filter((end) => kinds.isTrained(end));
  const isSimple = trained.length <= 1 && trained.every(({ part: own }) => own.shape.length === 0);
  if (isInseparable(ways) || !isSimple) {
    if (!totalsFirst && !isVouched) return planBatchSums(of, { ...options, totalsFirst: true });
    if (isInseparable(ways)) return ways;
    const names = trained.map(({ part: own }) => `"${own.name}"`).join(" and ");
    return { reason: `it is not a sum of ${names}, but another function of them` };
  }
  const totals = totalsFirst ? totalsOf(kinds, ways.ends) : undefined;
  if (totals?.graph.inputs.some((name) => totals.inputs.includes(name)) === true) {
    return { reason: "it needs sums over the batch that need other sums over the batch" };
  }
  const { terms, values } = termsOf(kinds, ways.ends);
  const isPlain = ways.tail === undefined && terms[0]?.output === of && !totalsFirst;
  const outputs = [...values, ...kept.map((name) => kinds.pair(name)?.part as Value)];
  return {
    graph: isPlain ? withOutputs(part.graph, [of, ...kept]) : kinds.part.build(outputs),
    terms,
    tail: ways.tail,
    counts: countsOf(ways, terms),
    totals,
  };
}

/** The values that a number of the batch is computed from, and their kinds. */
export interface Ways {
  readonly ends: readonly Pair[];
  readonly tail: Graph | undefined;
}

export function waysOf(kinds: BatchKinds, of: string): Ways | Inseparable {
  const kind = kinds.kind(of);
  const pair = kinds.pair(of);
  if (kind.kind === "mixed") return { reason: kind.reason };
  if (kind.kind === "rows" || pair === undefined)
    return { reason: `"${of}" is not a single number` };
  if (kind.kind !== "total") return { ends: [pair], tail: undefined };
  const ends = boundaryOf(kinds, pair);
  return { ends, tail: tailOf(kinds, [pair], ends) };
}

export function countsOf({ tail }: Ways, terms: readonly Term[]): number[] {
  return tail === undefined ? [] : divisors(tail, terms);
}

/**
 * A model may be computed differently for one sample than for several, and then its graph for one
 * sample does not show which values depend on other samples. That is found out with the graph for
 * two samples.
 */
function planSingles(of: string, options: BatchSumsOptions): BatchSums | Inseparable {
  const { part } = options;
  const pair = { part: part.resized(2), whole: part.resized(4), share: 1 / 2 };
  const found = planBatchSums(of, { ...options, ...pair });
  if (isInseparable(found)) return found;
  if (found.totals === undefined) return planBatchSums(of, { ...options, isVouched: true });
  return { reason: `the model is computed differently for one sample than for several` };
}

/**
 * The values from which the totals are computed and which can be summed over the parts, found by
 * walking back from the totals.
 */
function boundaryOf(kinds: BatchKinds, ...totals: readonly Pair[]): Pair[] {
  const ends: Pair[] = [];
  const seen = new Set<string>();
  const visit = (pair: Pair | undefined): void => {
    if (pair === undefined || seen.has(pair.part.name)) return;
    seen.add(pair.part.name);
    if (kinds.kindOf(pair).kind !== "total") {
      if (kinds.part.constantOf(pair.part) === undefined) ends.push(pair);
      return;
    }
    const inputs = kinds.part.makerOf(pair.part)?.inputs ?? [];
    for (const name of inputs) visit(kinds.pairOf(name));
  };
  for (const total of totals) visit(total);
  return ends;
}

export function termsOf(
  kinds: BatchKinds,
  ends: readonly Pair[],
): { terms: Term[]; values: Value[] } {
  const taken = new Set<string>();
  const values: Value[] = [];
  const terms = ends.map((end): Term => {
    const kind = kinds.kindOf(end);
    const { factor, part } = kind.kind === "sum" ? kind : { factor: kinds.share, part: end.part };
    const wide = part.dtype === "float64" || part.dtype === "float32";
    let value = wide ? part : cast(part, "float32");
    if (kinds.part.inputs.includes(value.name) || taken.has(value.name)) {
      value = kinds.part.one("Identity", [value]);
    }
    taken.add(value.name);
    values.push(value);
    return { output: value.name, type: value.type, factor, trained: kinds.isTrained(end) };
  });
  return { terms, values };
}

/**
 * The graph from terms of the whole batch to results. Its inputs are named `term.0`, `term.1`, ….
 */
function tailOf(kinds: BatchKinds, results: readonly Pair[], ends: readonly Pair[]): Graph {
  const side = kinds.share < 1 ? "whole" : "part";
  const built = kinds[side].build(results.map((pair) => pair[side]));
  const { outputs } = built;
  const sliced = sliceGraph(built, { inputs: ends.map((end) => end[side].name), outputs });
  const names = new Map(ends.map((end, index) => [end[side].name, `term.${index}`]));
  return renameValues({ ...sliced, name: "tail" }, names);
}

/**
 * The indices of the terms, scalars without a gradient, that something is divided by: in the tail,
 * or after its `results`.
 */
function divisors(tail: Graph, terms: readonly Term[], results: Iterable<string> = []): number[] {
  const divides = dividing(tail, results);
  return terms.flatMap(({ trained, type }, index) =>
    !trained && type.shape.length === 0 && divides.has(`term.${index}`) ? [index] : [],
  );
}

/**
 * The values of a graph that something is divided by, and all values that they are computed from.
 */
function dividing({ nodes }: Pick<Graph, "nodes">, also: Iterable<string> = []): Set<string> {
  const divides = new Set(also);
  for (const node of nodes.toReversed()) {
    const divisor = operatorTable.find(node.op)?.batch?.divides;
    const reaches = node.outputs.some((output) => divides.has(output));
    for (const [index, input] of node.inputs.entries()) {
      if (reaches || index === divisor) divides.add(input);
    }
  }
  return divides;
}

/** @param results the values that the number of the batch is computed from */
function totalsOf(kinds: BatchKinds, results: readonly Pair[]): Totals | undefined {
  if (kinds.given.length === 0) return undefined;
  const pairs = kinds.given.map(({ pair }) => pair);
  const ends = boundaryOf(kinds, ...pairs);
  const { terms, values } = termsOf(kinds, ends);
  const graph = kinds.part.build(values);
  const tail = tailOf(kinds, pairs, ends);
  const divides = dividing(kinds.part.build(results.map(({ part }) => part)));
  const divisible = kinds.given.flatMap(({ input }, index) =>
    divides.has(input) ? [tail.outputs[index] as string] : [],
  );
  return {
    graph: sliceGraph(graph, { name: "totals", outputs: graph.outputs }),
    terms,
    tail,
    inputs: kinds.given.map(({ input }) => input),
    counts: divisors(tail, terms, divisible),
  };
}
