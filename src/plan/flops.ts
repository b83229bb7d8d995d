/** Counts the floating-point operations of graphs, as their operators define them. */
import { type Graph, inferContext, type Node, typeOf } from "../graph/index.ts";
import { operatorTable } from "../ops/index.ts";

const known = new WeakMap<Graph, number>();

/** Returns the floating-point operations of one execution of a graph. */
export function flopsOf(graph: Graph): number {
  const before = known.get(graph);
  if (before !== undefined) return before;
  const flops = flopsOfNodes(graph, graph.nodes);
  known.set(graph, flops);
  return flops;
}

/** Returns the floating-point operations of some nodes of a graph. */
export function flopsOfNodes(graph: Graph, nodes: readonly Node[]): number {
  let flops = 0;
  for (const node of nodes) {
    const definition = operatorTable.find(node.op);
    if (definition === undefined) continue;
    const type = (name: string) => (name === "" ? undefined : typeOf(graph, name));
    const context = inferContext({
      definition,
      where: node.name,
      inputs: node.inputs.map(type),
      constants: node.inputs.map((name) => graph.constants.get(name)),
      attributes: node.attributes,
      outputCount: node.outputs.length,
    });
    flops += definition.flops({
      ...context,
      outputs: node.outputs.flatMap((name) => type(name) ?? []),
    });
  }
  return flops;
}
