/**
 * Prints a graph as text, for people and for golden files: one line for each value, the same from
 * run to run.
 */
import { formatType, type Tensor, toNumbers } from "../tensor/index.ts";
import type { Attributes, AttributeValue, Graph, Node } from "./graph.ts";
import { typeOf } from "./graph.ts";

export interface PrintOptions {
  /** Whether node names are printed as comments. Default: false. */
  readonly nodeNames?: boolean;
}

/**
 * ```
 * graph line
 *   input x: float32[4, 1]
 *   const w: float32[1, 1] = [0.5]
 *   y: float32[4, 1] = MatMul(x, w)
 *   output y
 * ```
 */
export function printGraph(graph: Graph, options: PrintOptions = {}): string {
  const lines = [`graph ${graph.name}`];
  const typed = (name: string) => `${name}: ${formatType(typeOf(graph, name))}`;
  for (const name of graph.inputs) lines.push(`  input ${typed(name)}`);
  for (const [name, tensor] of graph.constants) {
    lines.push(`  const ${typed(name)} = ${formatData(tensor)}`);
  }
  for (const node of graph.nodes) {
    const outputs = node.outputs.map((name) => (name === "" ? "_" : typed(name))).join(", ");
    const comment = options.nodeNames === true ? `  # ${node.name}` : "";
    lines.push(`  ${outputs} = ${formatCall(node)}${comment}`);
  }
  for (const name of graph.outputs) lines.push(`  output ${name}`);
  return `${lines.join("\n")}\n`;
}

function formatCall(node: Node): string {
  const inputs = node.inputs.map((name) => (name === "" ? "_" : name));
  return `${node.op}(${[...inputs, ...formatAttributes(node.attributes)].join(", ")})`;
}

function formatAttributes(attributes: Attributes): string[] {
  return Object.entries(attributes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${formatAttribute(value)}`);
}

function formatAttribute(attribute: AttributeValue): string {
  switch (attribute.kind) {
    case "int":
      return String(attribute.value);
    case "float":
      return formatNumber(attribute.value);
    case "string":
      return JSON.stringify(attribute.value);
    case "ints":
      return `[${attribute.value.join(", ")}]`;
    case "floats":
      return `[${attribute.value.map(formatNumber).join(", ")}]`;
    case "strings":
      return JSON.stringify(attribute.value);
    case "tensor":
      return `${formatType(attribute.value)} ${formatData(attribute.value)}`;
  }
}

const MAX_SHOWN = 8;

function formatData(tensor: Tensor): string {
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  if (count > MAX_SHOWN) return "…";
  return `[${toNumbers(tensor).map(formatNumber).join(", ")}]`;
}

function formatNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(7)));
}
