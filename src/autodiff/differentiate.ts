/** Adds gradients to a graph with a loss, as outputs. */
import { LockstepError } from "../errors.ts";
import { zerosLike } from "../functional/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { extendGraph } from "../ops/index.ts";
import { formatType, isFloat } from "../tensor/index.ts";
import { backward, type Replacements } from "./backward.ts";
import { buildReplaced } from "./replace.ts";

export interface Differentiated {
  /**
   * The graph; its outputs are those of the given graph, followed by one gradient for each of
   * `wrt`.
   */
  readonly graph: Graph;
  /** The name of the gradient of each of `wrt`. */
  readonly gradients: ReadonlyMap<string, string>;
}

/**
 * Adds the gradient of `loss` (a scalar) with respect to each of `wrt`. A value that the loss does
 * not depend on gets a gradient of zeros.
 * @throws NO_GRADIENT, INVALID_GRAPH, SHAPE_MISMATCH (a loss that is not a scalar)
 */
export function differentiate(graph: Graph, loss: string, wrt: readonly string[]): Differentiated {
  const type = typeOf(graph, loss);
  if (type.shape.length !== 0 || !isFloat(type.dtype)) {
    throw new LockstepError(
      "SHAPE_MISMATCH",
      `Graph "${graph.name}": the loss "${loss}" must be one float, got ${formatType(type)}.`,
      { hint: "Reduce it over the batch: reduceMean(loss, { keepdims: false })." },
    );
  }
  const builder = extendGraph(graph);
  const sources = wrt.map((name) => builder.value(name));
  const replaced: Replacements = new Map();
  const found = backward([builder.value(loss)], sources, undefined, replaced);
  const taken = new Set(graph.outputs);
  const gradients = found.map((gradient, index) => {
    const value = gradient ?? zerosLike(sources[index] as (typeof sources)[number]);
    const fresh = taken.has(value.name) || builder.inputs.includes(value.name);
    const own = fresh ? builder.one("Identity", [value]) : value;
    taken.add(own.name);
    return own;
  });
  const outputs = graph.outputs.map((name) => builder.value(name));
  return {
    graph: buildReplaced(builder, [...outputs, ...gradients], replaced),
    gradients: new Map(wrt.map((name, index) => [name, gradients[index]?.name as string])),
  };
}
