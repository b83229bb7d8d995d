/** What whole numbers that ranks cut, such as tokens, become: every rank can make the whole again. */
import { type Graph, type Node, typeOf } from "../../graph/index.ts";
import { flopsOfNode } from "../../ops/index.ts";
import { isFloat } from "../../tensor/index.ts";

/**
 * What is tokens in another shape or type, by name, and the nodes that make it. Every rank can make
 * the whole of it again, at no cost.
 */
export function viewsOf(graph: Graph, tokens: ReadonlySet<string>): ReadonlyMap<string, Node> {
  const known = new Set(tokens);
  return new Map(
    graph.nodes.flatMap((node) => {
      const { inputs, outputs } = node;
      const types = outputs.map((name) => typeOf(graph, name));
      const isView =
        inputs.some((name) => known.has(name)) &&
        inputs.every((name) => name === "" || known.has(name) || graph.constants.has(name)) &&
        types.every(({ dtype }) => !isFloat(dtype)) &&
        flopsOfNode(graph, node) === 0;
      for (const name of isView ? outputs : []) known.add(name);
      return isView ? outputs.map((name) => [name, node] as const) : [];
    }),
  );
}
