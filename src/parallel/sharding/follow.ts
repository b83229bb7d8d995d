/** What follows from some values of a graph: what is made of them, and how if they are cut. */
import type { Graph, Node } from "../../graph/index.ts";
import { isSamePlacement, isShard, type Shard } from "../../mesh/index.ts";
import { type DividedOver, divisionsOf } from "../../ops/index.ts";

/** The values in which the cut of inputs goes on if nothing is sent, and along which dims. */
export function follow(
  graph: Graph,
  inputs: ReadonlyMap<string, Shard>,
  over: DividedOver,
): ReadonlyMap<string, Shard> {
  const found = new Map(inputs);
  for (const node of graph.nodes) {
    const read = node.inputs.map((name) => found.get(name));
    if (!read.some(isShard)) continue;
    const sections = read.flatMap((on) => (on?.sections === undefined ? [] : [on.sections]));
    const proportions = [...over.proportions, ...sections];
    const own = divisionsOf(graph, node, { ...over, proportions }).find(
      (division) =>
        division.outputs.some(isShard) &&
        division.inputs.every((on, index) => isSamePlacement(on, read[index])),
    );
    for (const [index, name] of node.outputs.entries()) {
      const on = own?.outputs[index];
      if (name !== "" && isShard(on)) found.set(name, on);
    }
  }
  return found;
}

/** The nodes that read some of these values, or what is made of them. */
export function nodesBehind(graph: Graph, names: ReadonlySet<string>): ReadonlySet<Node> {
  const made = new Set(names);
  return new Set(
    graph.nodes.filter(({ inputs, outputs }) => {
      const isBehind = inputs.some((name) => made.has(name));
      for (const name of isBehind ? outputs : []) made.add(name);
      return isBehind;
    }),
  );
}
