/**
 * Replaces nodes of other element types, whose kernel supports float32 only, by the operators that
 * they are composed of.
 */
import { assert } from "../../errors.ts";
import { type Graph, type Node, typeOf } from "../../graph/index.ts";
import { newBuilder, remade, writtenAs } from "../../ops/index.ts";

/** Operators that ONNX Runtime 1.30 supports in float32 only, according to its own errors. */
const FLOAT32_ALONE: ReadonlySet<string> = new Set(["GRU", "LSTM", "RNN"]);

export function writeOutUnsupported(graph: Graph): Graph {
  const isLacking = (node: Node) =>
    FLOAT32_ALONE.has(node.op) && typeOf(graph, node.inputs[0] as string).dtype !== "float32";
  if (!graph.nodes.some(isLacking)) return graph;
  const builder = newBuilder(graph.name);
  const built = remade(graph, builder, (node) => {
    if (!isLacking(node)) return undefined;
    const way = writtenAs(builder, node, `${node.name}/written`);
    assert(way !== undefined, `${node.op} has a form in other operators`);
    return way;
  });
  return named(built, graph);
}

/** Keeps the names of outputs: the output of a replaced node gets its name from an Identity. */
function named(graph: Graph, original: Graph): Graph {
  const types = new Map(graph.types);
  const nodes = [...graph.nodes];
  for (const [index, name] of original.outputs.entries()) {
    const own = graph.outputs[index] as string;
    if (own === name) continue;
    types.set(name, typeOf(original, name));
    nodes.push({ op: "Identity", name, inputs: [own], outputs: [name], attributes: {} });
  }
  return { ...graph, outputs: original.outputs, nodes, types };
}
