/**
 * The structural hash of a graph. It is equal for graphs that differ only in the names of values
 * and nodes. Engines compile graphs with the same hash only once, and address their inputs and
 * outputs by position.
 */
import { createHash } from "node:crypto";
import { formatType, type Tensor } from "../tensor/index.ts";
import type { AttributeValue, Graph } from "./graph.ts";

/** The digests of constants are cached: weights may be large, and appear in many graphs. */
const digests = new WeakMap<Tensor, string>();
const known = new WeakMap<Graph, string>();

/**
 * SHA-256, in hexadecimal, of the inputs, the nodes (operators, attributes, order), the contents of
 * used constants, the outputs and all types.
 */
export function hashGraph(graph: Graph): string {
  const hash = known.get(graph) ?? hashOf(graph);
  known.set(graph, hash);
  return hash;
}

function hashOf(graph: Graph): string {
  // The words are hashed at once: a call of the hash for each would take most of the time.
  const words: string[] = [];
  const numbers = new Map<string, number>([["", -1]]);
  const define = (value: string): void => {
    if (value === "") return;
    numbers.set(value, numbers.size);
    const type = graph.types.get(value);
    put(words, type === undefined ? "?" : formatType(type));
  };
  const refer = (value: string): void => {
    if (!numbers.has(value)) {
      define(value);
      const constant = graph.constants.get(value);
      put(words, constant === undefined ? "?" : digestOf(constant));
    }
    put(words, String(numbers.get(value)));
  };

  put(words, "inputs", String(graph.inputs.length));
  for (const input of graph.inputs) define(input);
  for (const node of graph.nodes) {
    put(words, "node", node.op, String(node.inputs.length), String(node.outputs.length));
    for (const input of node.inputs) refer(input);
    for (const output of node.outputs) {
      put(words, output === "" ? "absent" : "present");
      define(output);
    }
    for (const name of Object.keys(node.attributes).sort()) {
      const attribute = node.attributes[name];
      if (attribute !== undefined) put(words, "attribute", name, ...wordsOf(attribute));
    }
  }
  put(words, "outputs", String(graph.outputs.length));
  for (const output of graph.outputs) refer(output);
  return createHash("sha256").update(words.join("")).digest("hex");
}

/**
 * Adds words, each preceded by its length, so that different lists of words never give the same
 * text.
 */
function put(all: string[], ...words: readonly string[]): void {
  for (const word of words) all.push(`${word.length}:${word};`);
}

function wordsOf(attribute: AttributeValue): string[] {
  switch (attribute.kind) {
    case "tensor":
      return ["tensor", digestOf(attribute.value)];
    case "int":
    case "float":
      return [attribute.kind, formatNumber(attribute.value)];
    case "string":
      return [attribute.kind, attribute.value];
    case "ints":
    case "floats":
      return [attribute.kind, attribute.value.map(formatNumber).join(",")];
    case "strings":
      return [attribute.kind, JSON.stringify(attribute.value)];
  }
}

function formatNumber(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function digestOf(tensor: Tensor): string {
  let digest = digests.get(tensor);
  if (digest === undefined) {
    digest = createHash("sha256").update(formatType(tensor)).update(tensor.bytes).digest("hex");
    digests.set(tensor, digest);
  }
  return digest;
}
