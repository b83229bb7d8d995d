/**
 * Fuses factors into products: `MatMul(a · s, b)` and `MatMul(a, b) · s` become one product with a
 * factor, as ONNX Runtime's own optimizer would fuse them. It is done before a graph is cut into
 * pieces, so that pieces give the same bits as the whole: the optimizer cannot see across a cut,
 * and would fuse other factors in a piece than in the whole.
 */
import type { Graph, Node } from "../../graph/index.ts";
import { elementCount, toNumbers } from "../../tensor/index.ts";

const FUSED = "com.microsoft::FusedMatMul";

interface Scaled {
  /** The value that is scaled. */
  readonly value: string;
  readonly factor: number;
}

export function fuseScales(graph: Graph): Graph {
  // A factor of a factor is found once the first is fused.
  for (let current = graph; ; ) {
    const next = fuseOnce(current);
    if (next === current) return current;
    current = next;
  }
}

function fuseOnce(graph: Graph): Graph {
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
  const readers = new Map<string, Node[]>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) readers.set(input, [...(readers.get(input) ?? []), node]);
  }
  const outputs = new Set(graph.outputs);
  const gone = new Set<Node>();
  const nodes = graph.nodes.map((node): Node => {
    if (!isProduct(graph, node)) return node;
    const alpha = node.attributes["alpha"]?.value;
    let factor = typeof alpha === "number" ? alpha : 1;
    const inputs = node.inputs.map((name) => {
      const scaled = scaledBy(graph, makers.get(name));
      if (scaled === undefined) return name;
      factor = Math.fround(factor * scaled.factor);
      return scaled.value;
    });
    let [output = ""] = node.outputs;
    const [reader, ...others] = readers.get(output) ?? [];
    const after = others.length === 0 && !outputs.has(output) ? scaledBy(graph, reader) : undefined;
    if (reader !== undefined && after?.value === output) {
      factor = Math.fround(factor * after.factor);
      gone.add(reader);
      output = reader.outputs[0] as string;
    }
    if (output === node.outputs[0] && inputs.every((name, at) => name === node.inputs[at])) {
      return node;
    }
    const attributes = { ...node.attributes, alpha: { kind: "float", value: factor } } as const;
    return { ...node, op: FUSED, inputs, outputs: [output], attributes };
  });
  const kept = nodes.filter((node) => !gone.has(node));
  if (kept.every((node, at) => node === graph.nodes[at])) return graph;
  return { ...graph, nodes: withoutUnused(kept, outputs) };
}

function isProduct({ types }: Graph, { op, inputs }: Node): boolean {
  return (op === "MatMul" || op === FUSED) && types.get(inputs[0] ?? "")?.dtype === "float32";
}

/** The value that a node multiplies by a single number, and that number. */
function scaledBy({ constants, types }: Graph, node: Node | undefined): Scaled | undefined {
  if (node === undefined || (node.op !== "Mul" && node.op !== "Div")) return undefined;
  const [a = "", b = ""] = node.inputs;
  const numberOf = (name: string): number | undefined => {
    const tensor = constants.get(name);
    if (tensor === undefined || elementCount(tensor.shape) !== 1) return undefined;
    return toNumbers(tensor)[0];
  };
  const keepsShape = (value: string) => {
    const [before, after] = [types.get(value)?.shape, types.get(node.outputs[0] ?? "")?.shape];
    return before?.join() === after?.join();
  };
  const right = numberOf(b);
  if (right !== undefined && keepsShape(a)) {
    return { value: a, factor: node.op === "Mul" ? right : Math.fround(1 / right) };
  }
  const left = node.op === "Mul" ? numberOf(a) : undefined;
  return left === undefined || !keepsShape(b) ? undefined : { value: b, factor: left };
}

/** Removes nodes whose outputs are not read any more; nodes that were never read are kept. */
function withoutUnused(nodes: readonly Node[], outputs: ReadonlySet<string>): Node[] {
  const read = new Set(nodes.flatMap(({ inputs }) => inputs));
  return nodes.filter(
    ({ op, outputs: made }) =>
      (op !== "Mul" && op !== "Div") || made.some((name) => read.has(name) || outputs.has(name)),
  );
}
