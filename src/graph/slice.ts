/**
 * Extracts a part of a graph as a graph: the nodes between cut points and outputs, or all that
 * outputs need.
 */
import { LockstepError } from "../errors.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";
import { type Graph, type Node, typeOf, validateGraph } from "./graph.ts";
import { reach } from "./reach.ts";

export interface SliceOptions {
  readonly name?: string;
  /**
   * The values that the part takes as inputs instead of computing them. Default: the graph's own
   * inputs.
   */
  readonly inputs?: readonly string[];
  readonly outputs: readonly string[];
}

/**
 * The nodes that `outputs` need, back to `inputs`, constants and the graph's own inputs. Its inputs
 * are those given, in their order, followed by the graph's own inputs that the part still needs.
 * Throws INVALID_GRAPH for a name that the graph does not have.
 */
export function sliceGraph(graph: Graph, options: SliceOptions): Graph {
  const cuts = new Set(options.inputs);
  for (const name of [...cuts, ...options.outputs]) {
    typeOf(graph, name);
  }
  const { nodes, values: needed } = reach(graph.nodes, options.outputs, (name) => cuts.has(name));
  for (const node of nodes) {
    const cut = node.outputs.find((output) => cuts.has(output));
    if (cut === undefined) continue;
    throw new LockstepError(
      "INVALID_GRAPH",
      `Graph "${graph.name}": cannot cut at "${cut}", for other outputs of node "${node.name}" are needed.`,
      { hint: "Cut at all outputs of the node, or at its inputs." },
    );
  }
  const inputs = [...cuts, ...graph.inputs.filter((name) => needed.has(name))];
  const constants = new Map([...graph.constants].filter(([name]) => needed.has(name)));
  return assemble(graph, options.name ?? graph.name, {
    inputs,
    outputs: options.outputs,
    nodes,
    constants,
  });
}

/** Removes nodes and constants that no output needs; inputs are kept. */
export function removeUnused(graph: Graph): Graph {
  const { nodes, values: needed } = reach(graph.nodes, graph.outputs);
  const constants = new Map([...graph.constants].filter(([name]) => needed.has(name)));
  return assemble(graph, graph.name, { ...graph, nodes, constants });
}

/** The same graph with only these outputs and the nodes that they need; inputs are kept. */
export function withOutputs(graph: Graph, outputs: readonly string[]): Graph {
  return removeUnused({ ...graph, outputs });
}

/**
 * A graph of some of the nodes of `graph`, with the types of the values that remain. It is
 * validated.
 */
function assemble(
  graph: Graph,
  name: string,
  parts: {
    readonly inputs: readonly string[];
    readonly outputs: readonly string[];
    readonly nodes: readonly Node[];
    readonly constants: ReadonlyMap<string, Tensor>;
  },
): Graph {
  const types = new Map<string, TensorType>();
  const values = parts.nodes.flatMap((node) => node.outputs);
  for (const value of [...parts.inputs, ...parts.constants.keys(), ...values]) {
    if (value !== "") types.set(value, typeOf(graph, value));
  }
  return validateGraph({ name, ...parts, types });
}
