/**
 * Replaces nodes of other element types, whose kernel supports float32 only, by the operators that
 * they are composed of.
 */
import { assert } from "../../errors.ts";
import {
  type Graph,
  type GraphBuilder,
  type Node,
  readAttributes,
  typeOf,
  type Value,
} from "../../graph/index.ts";
import { newBuilder, operatorTable } from "../../ops/index.ts";

/** Operators that ONNX Runtime 1.30 supports in float32 only, according to its own errors. */
const FLOAT32_ALONE: ReadonlySet<string> = new Set(["GRU", "LSTM", "RNN"]);

export function writeOutUnsupported(graph: Graph): Graph {
  const isLacking = (node: Node) =>
    FLOAT32_ALONE.has(node.op) && typeOf(graph, node.inputs[0] as string).dtype !== "float32";
  if (!graph.nodes.some(isLacking)) return graph;
  const builder = newBuilder(graph.name);
  const values = new Map<string, Value>();
  for (const name of graph.inputs) values.set(name, builder.input(name, typeOf(graph, name)));
  for (const [name, tensor] of graph.constants) {
    values.set(name, builder.namedConstant(name, tensor));
  }
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => values.get(name));
    const results = isLacking(node)
      ? builder.within(`${node.name}/written`, () => written(builder, node, inputs))
      : builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
    for (const [index, name] of node.outputs.entries()) {
      if (name !== "") values.set(name, results[index] as Value);
    }
  }
  const built = builder.build(graph.outputs.map((name) => values.get(name) as Value));
  return named(built, graph);
}

function written(
  builder: GraphBuilder,
  node: Node,
  inputs: readonly (Value | undefined)[],
): readonly Value[] {
  const definition = operatorTable.find(node.op);
  assert(definition?.written !== undefined, `${node.op} has a form in other operators`);
  return definition.written({
    builder,
    attributes: readAttributes(definition, node.attributes, node.name),
    inputs,
    input: (index) => inputs[index] as Value,
  });
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
