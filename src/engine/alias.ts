/**
 * Decides which outputs may be written over which inputs. It looks at structure only; whether an
 * operator works in place is stated in its file.
 */
import type { Graph, Node, OperatorTable } from "../graph/index.ts";
import { sameType, type TensorType } from "../tensor/index.ts";

/**
 * Whether `output` may share memory with `input`. Both must have one type; every node between them
 * must work element by element on values of that type; and every reader of the input must be done
 * before the output is written. So an engine may fuse these nodes and run the others in any order.
 */
export function mayAlias(
  graph: Graph,
  operators: OperatorTable,
  output: string,
  input: string,
): boolean {
  const type = graph.types.get(input);
  const last = graph.nodes.findIndex((node) => node.outputs.includes(output));
  if (type === undefined || last < 0 || !graph.inputs.includes(input)) return false;
  if (!isType(graph, output, type)) return false;

  const needed = ancestors(graph, last);
  const reached = new Set([input]); // values on the way from the input to the output
  for (const [index, node] of graph.nodes.entries()) {
    if (!node.inputs.some((name) => reached.has(name))) continue;
    if (!needed.has(index)) {
      if (node.inputs.includes(input)) return false;
      continue;
    }
    if (!isInPlace(graph, operators, node, type)) return false;
    for (const made of node.outputs) reached.add(made);
  }
  return reached.has(output) || !readers(graph, input);
}

/** The node at `last` and all nodes that it depends on. */
function ancestors(graph: Graph, last: number): Set<number> {
  const wanted = new Set<string>();
  const found = new Set<number>();
  for (let index = last; index >= 0; index--) {
    const node = graph.nodes[index];
    if (node === undefined) continue;
    if (index !== last && !node.outputs.some((name) => wanted.has(name))) continue;
    found.add(index);
    for (const name of node.inputs) if (name !== "") wanted.add(name);
  }
  return found;
}

function isInPlace(graph: Graph, operators: OperatorTable, node: Node, type: TensorType): boolean {
  if (operators.find(node.op)?.inPlace !== true) return false;
  return node.outputs.every((name) => name === "" || isType(graph, name, type));
}

function readers(graph: Graph, value: string): boolean {
  return graph.nodes.some((node) => node.inputs.includes(value));
}

function isType(graph: Graph, value: string, type: TensorType): boolean {
  const found = graph.types.get(value);
  return found !== undefined && sameType(found, type);
}
