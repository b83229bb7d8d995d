/**
 * Computes how much memory a graph's values take during an execution, from their lifetimes, without
 * executing it.
 */
import type { Graph } from "../graph/index.ts";
import { byteLength } from "../tensor/index.ts";

const known = new WeakMap<Graph, number>();

/**
 * Returns the most bytes that values between inputs and outputs take at once when nodes run in the
 * graph's order.
 */
export function peakOfIntermediates(graph: Graph): number {
  const found = known.get(graph) ?? peakOf(graph);
  known.set(graph, found);
  return found;
}

function peakOf(graph: Graph): number {
  const kept = new Set([...graph.inputs, ...graph.outputs, ...graph.constants.keys()]);
  const lastUse = new Map<string, number>();
  for (const [at, node] of graph.nodes.entries()) {
    for (const name of [...node.inputs, ...node.outputs]) lastUse.set(name, at);
  }
  const sizeOf = (name: string) => {
    const type = graph.types.get(name);
    return type === undefined || kept.has(name) ? 0 : byteLength(type);
  };
  let [live, peak] = [0, 0];
  for (const [at, node] of graph.nodes.entries()) {
    for (const name of node.outputs) live += sizeOf(name);
    peak = Math.max(peak, live);
    for (const name of new Set([...node.inputs, ...node.outputs])) {
      if (lastUse.get(name) === at) live -= sizeOf(name);
    }
  }
  return peak;
}
