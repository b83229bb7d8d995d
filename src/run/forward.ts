/**
 * The forward half of a model: takes weights and batch fields, and gives outputs without the loss.
 */
import { type Graph, sliceGraph, typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Tensor } from "../tensor/index.ts";

/**
 * Removes the loss, other scalars (measures such as an accuracy) and the fields that only these
 * read (labels, targets) from a model built in `eval` mode. Weights are inputs of the graph:
 * `bindWeights` gives them values.
 */
export function forwardGraph(model: Model): Graph {
  const named = Object.values(model.outputs);
  const predictions = named.filter((name) => typeOf(model.graph, name).shape.length > 0);
  const outputs = [predictions, named, [model.loss]].find((names) => names.length > 0) ?? [];
  return sliceGraph(model.graph, { name: model.name, outputs });
}

/** Returns the graph with some of its inputs as constants, which are views of the tensors. */
export function bindWeights(graph: Graph, weights: Readonly<Record<string, Tensor>>): Graph {
  const isBound = (name: string) => Object.hasOwn(weights, name);
  const bound = graph.inputs.filter(isBound);
  return {
    ...graph,
    inputs: graph.inputs.filter((name) => !isBound(name)),
    constants: new Map([
      ...graph.constants,
      ...bound.map((name) => [name, weights[name] as Tensor] as const),
    ]),
  };
}
