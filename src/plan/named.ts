/** Builds graphs whose outputs have the names by which a program binds them. */
import { assert } from "../errors.ts";
import type { Graph, GraphBuilder, Value } from "../graph/index.ts";

/** Builds the graph of `outputs`; each output is named by its key. */
export function buildNamed(builder: GraphBuilder, outputs: ReadonlyMap<string, Value>): Graph {
  const taken = new Set<string>();
  const own = [...outputs.values()].map((value) => {
    const isMade = !builder.inputs.includes(value.name) && builder.constantOf(value) === undefined;
    const result = isMade && !taken.has(value.name) ? value : builder.one("Identity", [value]);
    taken.add(result.name);
    return result;
  });
  return renameOutputs(builder.build(own), [...outputs.keys()]);
}

/** The same graph with other names for its outputs, which must be distinct outputs of nodes. */
function renameOutputs(graph: Graph, names: readonly string[]): Graph {
  const renamed = new Map<string, string>();
  for (const [index, output] of graph.outputs.entries()) {
    const name = names[index];
    assert(name !== undefined && !renamed.has(output), "each output gets one name");
    assert(name === output || !graph.types.has(name), `"${name}" is a name of its own`);
    renamed.set(output, name);
  }
  return renameValues(graph, renamed);
}

/** The same graph with other names for some of its values that are no constants. */
export function renameValues(graph: Graph, names: ReadonlyMap<string, string>): Graph {
  const rename = (name: string) => names.get(name) ?? name;
  return {
    ...graph,
    inputs: graph.inputs.map(rename),
    outputs: graph.outputs.map(rename),
    nodes: graph.nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    })),
    types: new Map([...graph.types].map(([name, type]) => [rename(name), type])),
  };
}
