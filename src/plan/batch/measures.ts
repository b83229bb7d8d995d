/**
 * Numbers that a model gives for a batch (its loss, an accuracy) as functions of sums over the
 * parts of the batch.
 */
import type { Graph } from "../../graph/index.ts";
import type { Model } from "../../nn/index.ts";
import { BatchKinds } from "./batch-kinds.ts";
import { countsOf, isInseparable, type Sums, termsOf, waysOf } from "./batch-sums.ts";

export interface Measure extends Sums {
  readonly name: string;
  /**
   * Why the number is the mean over batches, weighted by their sizes, and not the number of all
   * samples together; undefined if it is that of all samples.
   */
  readonly meanOfBatches: string | undefined;
}

export interface MeasuresPlan {
  /** The graph of a batch; the terms of all measures are values of it. */
  readonly graph: Graph;
  readonly measures: readonly Measure[];
}

/**
 * @param whole the model for all samples, or for more if `part` has all of them
 * @param share the samples of `part` divided by all samples
 */
export function planMeasures(
  part: Model,
  whole: Model,
  names: readonly string[],
  share: number,
): MeasuresPlan {
  const kinds = new BatchKinds(names, { part, whole, share, exactMeans: true });
  const measures = names.map((name): Measure => {
    const ways = waysOf(kinds, name);
    if (isInseparable(ways)) {
      const { name: output, type } = kinds.pair(name)?.part ?? kinds.part.value(name);
      const term = { output, type, factor: share, trained: false };
      const meanOfBatches = share < 1 ? ways.reason : undefined;
      return { name, terms: [term], tail: undefined, counts: [], meanOfBatches };
    }
    const { terms } = termsOf(kinds, ways.ends);
    const counts = countsOf(ways, terms);
    return { name, terms, tail: ways.tail, counts, meanOfBatches: undefined };
  });
  const all = measures.flatMap(({ terms }) => terms.map(({ output }) => output));
  return {
    graph: kinds.part.build([...new Set(all)].map((name) => kinds.part.value(name))),
    measures,
  };
}
