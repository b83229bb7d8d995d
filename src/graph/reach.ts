/** What the values of a graph are computed from. */
import type { Node } from "./graph.ts";

export interface Reach {
  /** The nodes that make the values, in their order. */
  readonly nodes: Node[];
  /** The values themselves, and all that those nodes read. */
  readonly values: Set<string>;
}

/**
 * The nodes that `values` need, found by walking back from them. `isGiven` tells the values that
 * are not computed but taken as they are: the walk ends there, and they are left out of the result.
 */
export function reach(
  nodes: readonly Node[],
  values: Iterable<string>,
  isGiven: (name: string) => boolean = () => false,
): Reach {
  const needed = new Set<string>();
  const want = (name: string) => {
    if (name !== "" && !isGiven(name)) needed.add(name);
  };
  for (const name of values) want(name);
  const kept = nodes.toReversed().filter(({ inputs, outputs }) => {
    if (!outputs.some((name) => needed.has(name))) return false;
    for (const name of inputs) want(name);
    return true;
  });
  return { nodes: kept.reverse(), values: needed };
}
