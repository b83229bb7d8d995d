/**
 * Rewrites that do not change a result: equal nodes are computed once; identities and unused nodes
 * are removed.
 */
import { formatType, sameType, type Tensor } from "../tensor/index.ts";
import { type Attributes, type Graph, type Node, typeOf } from "./graph.ts";
import { assemble } from "./slice.ts";

export interface SimplifyOptions {
  /**
   * Whether a node differs from others even with equal inputs. Default: true for random operators
   * and those of Lockstep's own domain (collectives).
   */
  readonly distinct?: (node: Node) => boolean;
}

const DISTINCT = /^(?:Random|Bernoulli|Multinomial|Dropout|lockstep::)/;

/** Applies all rewrites of this file until nothing changes. */
export function simplifyGraph(graph: Graph, options: SimplifyOptions = {}): Graph {
  let current = graph;
  for (;;) {
    const next = removeUnused(mergeEqual(removeIdentity(current), options));
    if (next.nodes.length === current.nodes.length) return next;
    current = next;
  }
}

/** Removes nodes and constants that no output needs; inputs are kept. */
export function removeUnused(graph: Graph): Graph {
  const needed = new Set(graph.outputs);
  const nodes: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    nodes.push(node);
    for (const input of node.inputs) needed.add(input);
  }
  nodes.reverse();
  const constants = new Map([...graph.constants].filter(([name]) => needed.has(name)));
  return assemble(graph, graph.name, { ...graph, nodes, constants });
}

/** The same graph with only these outputs and the nodes that they need; inputs are kept. */
export function withOutputs(graph: Graph, outputs: readonly string[]): Graph {
  return removeUnused({ ...graph, outputs });
}

/**
 * Lets readers of an Identity, or of a Cast to the same type, read its input. Outputs of the graph
 * keep their names.
 */
export function removeIdentity(graph: Graph): Graph {
  const names = new Map<string, string>();
  const outputs = new Set(graph.outputs);
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    const own = renamed(node, names);
    const [input = "", ...more] = own.inputs;
    const [output = ""] = own.outputs;
    const nothing =
      (own.op === "Identity" || own.op === "Cast") &&
      more.length === 0 &&
      sameType(typeOf(graph, input), typeOf(graph, output));
    if (nothing) names.set(output, input);
    if (!nothing || outputs.has(output)) nodes.push(own);
  }
  return assemble(graph, graph.name, { ...graph, nodes });
}

/**
 * Merges common subexpressions: nodes with the same operator, attributes and inputs, and equal
 * small constants.
 */
export function mergeEqual(graph: Graph, options: SimplifyOptions = {}): Graph {
  const { distinct = (node: Node) => DISTINCT.test(node.op) } = options;
  const names = new Map<string, string>();
  const outputs = new Set(graph.outputs);
  const constants = new Map<string, Tensor>();
  const seen = new Map<string, readonly string[]>();
  for (const [name, tensor] of graph.constants) {
    const key = outputs.has(name) ? undefined : constantKey(tensor);
    const [first] = (key !== undefined && seen.get(key)) || [];
    if (first !== undefined) {
      names.set(name, first);
      continue;
    }
    if (key !== undefined) seen.set(key, [name]);
    constants.set(name, tensor);
  }
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    const own = renamed(node, names);
    const key = distinct(own) ? undefined : nodeKey(own);
    const first = key === undefined ? undefined : seen.get(key);
    // The name of a graph output must not change, so its node is kept.
    if (first !== undefined && !own.outputs.some((output) => outputs.has(output))) {
      for (const [index, output] of own.outputs.entries()) {
        if (output !== "") names.set(output, first[index] as string);
      }
      continue;
    }
    if (key !== undefined && first === undefined) seen.set(key, own.outputs);
    nodes.push(own);
  }
  return assemble(graph, graph.name, { ...graph, nodes, constants });
}

function renamed(node: Node, names: ReadonlyMap<string, string>): Node {
  if (!node.inputs.some((input) => names.has(input))) return node;
  return { ...node, inputs: node.inputs.map((input) => names.get(input) ?? input) };
}

const MAX_COMPARED_BYTES = 4096;

function constantKey(tensor: Tensor): string | undefined {
  if (tensor.bytes.byteLength > MAX_COMPARED_BYTES) return undefined;
  return `${formatType(tensor)}:${hex(tensor.bytes)}`;
}

function nodeKey(node: Node): string {
  const left = node.outputs.map((output) => output === "");
  return JSON.stringify([node.op, node.inputs, left, attributeKey(node.attributes)]);
}

function attributeKey(attributes: Attributes): unknown {
  return Object.entries(attributes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { kind, value }]) => [
      name,
      kind,
      kind === "tensor" ? [formatType(value), hex(value.bytes)] : value,
      // JSON has no negative zero and no infinities.
      kind === "float" ? `${Object.is(value, -0)}${value}` : "",
    ]);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
