/** The forward half of a trained model: weights as constants, batch fields in, outputs (not the loss) out. */
import { type Graph, sliceGraph, typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Tensor } from "../tensor/index.ts";

/**
 * Cuts the loss, other scalars (measures: an accuracy) and the fields that only they read (labels, targets) off a model built in
 * `eval` mode.
 * @param weights parameters and states by name; they become constants, as views
 */
export function forwardGraph(model: Model, weights: Readonly<Record<string, Tensor>>): Graph {
  const named = Object.values(model.outputs);
  const predictions = named.filter((name) => typeOf(model.graph, name).shape.length > 0);
  const outputs = [predictions, named, [model.loss]].find((names) => names.length > 0) ?? [];
  const graph = sliceGraph(model.graph, { name: model.name, outputs });
  const fixed = graph.inputs.filter((name) => name in weights);
  return {
    ...graph,
    inputs: graph.inputs.filter((name) => !(name in weights)),
    constants: new Map([
      ...graph.constants,
      ...fixed.map((name) => [name, weights[name] as Tensor] as const),
    ]),
  };
}
