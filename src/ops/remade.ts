/** Copies of graphs in which some nodes are made in another way. */
import {
  type Graph,
  type GraphBuilder,
  type Node,
  readAttributes,
  typeOf,
  type Value,
} from "../graph/index.ts";
import { operatorTable } from "./table.ts";

/** Makes the outputs of a node, from the values that the graph has. */
export type Remake = (valueOf: (name: string) => Value) => readonly Value[];

/** @param wayOf undefined for a node that stays as it is */
export function remade(
  graph: Graph,
  builder: GraphBuilder,
  wayOf: (node: Node) => Remake | undefined,
): Graph {
  const values = new Map<string, Value>();
  for (const name of graph.inputs) values.set(name, builder.input(name, typeOf(graph, name)));
  for (const [name, tensor] of graph.constants) {
    values.set(name, builder.namedConstant(name, tensor));
  }
  const valueOf = (name: string) => values.get(name) as Value;
  const asItIs = ({ op, name, inputs, attributes, outputs }: Node): readonly Value[] => {
    const own = inputs.map((input) => values.get(input));
    return builder.append(op, name, own, attributes, outputs);
  };
  for (const node of graph.nodes) {
    const way = wayOf(node);
    const made = way === undefined ? asItIs(node) : way(valueOf);
    for (const [index, name] of node.outputs.entries()) {
      if (name !== "") values.set(name, made[index] as Value);
    }
  }
  return builder.build(graph.outputs.map(valueOf));
}

/**
 * A node as the operators that it is composed of; undefined for one that is not composed.
 * @param path that of the nodes which take its place
 */
export function writtenAs(builder: GraphBuilder, node: Node, path: string): Remake | undefined {
  const definition = operatorTable.find(node.op);
  const write = definition?.written;
  if (definition === undefined || write === undefined) return undefined;
  const attributes = readAttributes(definition, node.attributes, node.name);
  return (valueOf) => {
    const inputs = node.inputs.map((name) => (name === "" ? undefined : valueOf(name)));
    const input = (index: number) => inputs[index] as Value;
    return builder.within(path, () => write({ builder, attributes, inputs, input }));
  };
}
