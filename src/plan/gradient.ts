/** The forward and backward pass of one micro-batch, as a graph. */
import { differentiate } from "../autodiff/index.ts";
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { BatchSums } from "./batch/batch-sums.ts";

export interface GradientGraph {
  readonly graph: Graph;
  /** The names of the gradient outputs, by parameter name. */
  readonly gradients: ReadonlyMap<string, string>;
}

/**
 * Builds a graph whose outputs are the terms of the loss, the next states and all gradients; other
 * outputs of the model are omitted.
 */
export function gradientGraph(
  model: Model,
  { graph, terms }: Pick<BatchSums, "graph" | "terms">,
): GradientGraph {
  const names = model.parameters.map(({ name }) => name);
  const objective = terms.find(({ trained }) => trained) ?? terms[0];
  assert(objective !== undefined, "a loss has a term");
  return differentiate({ ...graph, name: `${model.name} gradient` }, objective.output, names);
}
