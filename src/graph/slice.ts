/** Extracts a part of a graph as a graph: the nodes between cut points and outputs. */
import { LockstepError } from "../errors.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";
import { type Graph, type Node, typeOf, validateGraph } from "./graph.ts";

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
  const needed = new Set<string>();
  const want = (name: string) => {
    if (name !== "" && !cuts.has(name)) needed.add(name);
  };
  for (const name of [...cuts, ...options.outputs]) {
    typeOf(graph, name);
  }
  for (const name of options.outputs) want(name);
  const nodes: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    const cut = node.outputs.find((output) => cuts.has(output));
    if (cut !== undefined) {
      throw new LockstepError(
        "INVALID_GRAPH",
        `Graph "${graph.name}": cannot cut at "${cut}", for other outputs of node "${node.name}" are needed.`,
        { hint: "Cut at all outputs of the node, or at its inputs." },
      );
    }
    nodes.push(node);
    for (const input of node.inputs) want(input);
  }
  nodes.reverse();
  const inputs = [...cuts, ...graph.inputs.filter((name) => needed.has(name))];
  const constants = new Map([...graph.constants].filter(([name]) => needed.has(name)));
  return assemble(graph, options.name ?? graph.name, {
    inputs,
    outputs: options.outputs,
    nodes,
    constants,
  });
}

/**
 * A graph of some of the nodes of `graph`, with the types of the values that remain. It is
 * validated.
 */
export function assemble(
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
