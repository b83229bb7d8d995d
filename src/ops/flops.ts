/** The floating-point operations of graphs, as their operators count them. */
import { type Graph, inferContextOf, type Node, typeOf } from "../graph/index.ts";
import { operatorTable } from "./table.ts";

const known = new WeakMap<Graph, number>();

/** The floating-point operations of one execution of a graph. */
export function flopsOf(graph: Graph): number {
  const before = known.get(graph);
  if (before !== undefined) return before;
  const flops = flopsOfNodes(graph, graph.nodes);
  known.set(graph, flops);
  return flops;
}

/** The floating-point operations of some nodes of a graph. */
export function flopsOfNodes(graph: Graph, nodes: readonly Node[]): number {
  return nodes.reduce((sum, node) => sum + flopsOfNode(graph, node), 0);
}

/** The floating-point operations of one node; 0 for an operator that is not known. */
export function flopsOfNode(graph: Graph, node: Node): number {
  const definition = operatorTable.find(node.op);
  if (definition === undefined) return 0;
  const outputs = node.outputs.flatMap((name) => (name === "" ? [] : typeOf(graph, name)));
  return definition.flops({ ...inferContextOf(graph, node, definition), outputs });
}
