/** Running statistics of normalization: which inputs of a file they are, and how a step replaces them. */
import type { RawGraph } from "../schema.ts";

/** Names of the running statistics that training replaces; `all`: also where the file has them fixed. */
export function statisticNames(graph: RawGraph, all: boolean): ReadonlySet<string> {
  const names = new Set<string>();
  for (const node of graph.node) {
    if (node.opType !== "BatchNormalization") continue;
    const training = node.attribute.some(({ name, i }) => name === "training_mode" && i === 1);
    // Before version 14, training was told by the number of outputs.
    if (!all && !training && node.output.length === 1) continue;
    for (const name of node.input.slice(3, 5)) names.add(name);
  }
  return names;
}
