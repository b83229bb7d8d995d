/**
 * The graph: an immutable list of nodes over named values, in the vocabulary of ONNX. Every type is
 * static. The graph knows no operator: what an operator means is defined in `ops/`, behind
 * `OperatorDefinition`.
 */
import { LockstepError } from "../errors.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";

/** An attribute of a node. `graph` is a subgraph (If, Loop), which is not interpreted here. */
export type AttributeValue =
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "ints"; readonly value: readonly number[] }
  | { readonly kind: "floats"; readonly value: readonly number[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "tensor"; readonly value: Tensor };

export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface Node {
  /** The operator: `Conv`, or with a domain `com.microsoft::FusedMatMul`, `lockstep::Detach`. */
  readonly op: string;
  /** A readable name, unique in its graph: `blocks.3.attention/Softmax_2`. */
  readonly name: string;
  /** The names of the input values; the empty string stands for an omitted optional input. */
  readonly inputs: readonly string[];
  /** The names of the output values; the empty string stands for an omitted optional output. */
  readonly outputs: readonly string[];
  readonly attributes: Attributes;
}

/**
 * Values are named; each is an input, a constant, or the output of one node. Nodes are in
 * topological order.
 */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Tensor>;
  /** The types of all values; an omitted value (the empty string) has none. */
  readonly types: ReadonlyMap<string, TensorType>;
}

export function typeOf(graph: Graph, value: string): TensorType {
  const type = graph.types.get(value);
  if (type === undefined) {
    throw new LockstepError("INVALID_GRAPH", `Graph "${graph.name}" has no value "${value}".`);
  }
  return type;
}

/** Checks names, order and single assignment. Throws INVALID_GRAPH for the first fault. */
export function validateGraph(graph: Graph): Graph {
  const known = new Set<string>(graph.constants.keys());
  const define = (value: string, by: string) => {
    if (value === "") return;
    if (known.has(value)) fail(`${by} defines "${value}" a second time`);
    if (!graph.types.has(value)) fail(`"${value}" (${by}) has no type`);
    known.add(value);
  };
  const fail = (what: string): never => {
    throw new LockstepError("INVALID_GRAPH", `Graph "${graph.name}": ${what}.`);
  };
  for (const input of graph.inputs) define(input, "the list of inputs");
  for (const name of graph.constants.keys()) {
    if (!graph.types.has(name)) fail(`constant "${name}" has no type`);
  }
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      if (input !== "" && !known.has(input)) {
        fail(`node "${node.name}" (${node.op}) reads "${input}", which nothing before it defines`);
      }
    }
    for (const output of node.outputs) define(output, `node "${node.name}" (${node.op})`);
  }
  for (const output of graph.outputs) {
    if (!known.has(output)) fail(`output "${output}" is not defined`);
  }
  return graph;
}
