/**
 * Numbers that a model gives for a batch (its loss, an accuracy) as functions of sums over the
 * parts of the batch.
 */
import type { Graph } from "../../graph/index.ts";
import type { Model } from "../../nn/index.ts";
import { countsOf, isInseparable, kindsOf, type Term, termsOf, waysOf } from "./batch-sums.ts";

export interface Measure {
  readonly name: string;
  readonly terms: readonly Term[];
  /**
   * The graph from the terms of the whole (inputs `term.0`, …) to the number; undefined if the
   * number is the only term.
   */
  readonly tail: Graph | undefined;
  /**
   * The indices of terms that the number is divided by. If one of them is 0, there was nothing to
   * measure.
   */
  readonly counts: readonly number[];
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
  const kinds = kindsOf(names, { part, whole, share }, true);
  const outputs = new Map<string, Term>();
  const measures = names.map((name): Measure => {
    const ways = waysOf(kinds, name);
    if (isInseparable(ways)) {
      const value = kinds.pair(name)?.part;
      const term = {
        output: value?.name ?? name,
        type: value?.type as Term["type"],
        factor: share,
        trained: false,
      };
      return {
        name,
        terms: [term],
        tail: undefined,
        counts: [],
        meanOfBatches: share < 1 ? ways.reason : undefined,
      };
    }
    const { terms } = termsOf(kinds, ways.ends);
    for (const term of terms) outputs.set(term.output, term);
    return {
      name,
      terms,
      tail: ways.tail,
      counts: countsOf(ways, terms),
      meanOfBatches: undefined,
    };
  });
  const all = measures.flatMap(({ terms }) => terms.map(({ output }) => output));
  return {
    graph: kinds.part.build([...new Set(all)].map((name) => kinds.part.value(name))),
    measures,
  };
}
