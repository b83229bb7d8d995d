/**
 * Finds the running statistics of normalizations among the inputs of a file, and how a step
 * replaces them.
 */
import type { RawGraph } from "../onnx/index.ts";

/**
 * The names of the running statistics that training replaces; with `all`, also those that are fixed
 * in the file.
 */
export function statisticNames(graph: RawGraph, all: boolean): ReadonlySet<string> {
  const names = new Set<string>();
  for (const node of graph.node) {
    if (node.opType !== "BatchNormalization") continue;
    const training = node.attribute.some(({ name, i }) => name === "training_mode" && i === 1);
    // Before version 14, the number of outputs indicated training mode.
    if (!all && !training && node.output.length === 1) continue;
    for (const name of node.input.slice(3, 5)) names.add(name);
  }
  return names;
}
