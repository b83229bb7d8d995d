/**
 * What ONNX Runtime's CPU provider runs faster than the portable form: a product with a transposed operand reads it in
 * place (`FusedMatMul`). Its own optimizer would do so too, but it first merges neighbouring transposes into one
 * that no product can absorb. Names, inputs and outputs of the graph stay as they are.
 */
import type { AttributeValue, Graph, Node } from "../../graph/index.ts";

const FUSED = "com.microsoft::FusedMatMul";
/** Element types that the fused kernel has. */
const FUSED_TYPES: ReadonlySet<string> = new Set(["float32"]);

export function fuseTransposedProducts(graph: Graph): Graph {
  const swaps = new Map<string, string>();
  for (const node of graph.nodes) {
    if (swapsLastTwo(node)) swaps.set(node.outputs[0] as string, node.inputs[0] as string);
  }
  if (swaps.size === 0) return graph;
  const nodes = graph.nodes.map((node) => fuseProduct(graph, node, swaps));
  const read = new Set([...graph.outputs, ...nodes.flatMap((node) => node.inputs)]);
  return {
    ...graph,
    nodes: nodes.filter(
      (node) => !swaps.has(node.outputs[0] as string) || read.has(node.outputs[0] as string),
    ),
  };
}

function fuseProduct(graph: Graph, node: Node, swaps: ReadonlyMap<string, string>): Node {
  const [a = "", b = ""] = node.inputs;
  const type = graph.types.get(a)?.dtype ?? "";
  if (node.op !== "MatMul" || !FUSED_TYPES.has(type)) return node;
  const [left, right] = [swaps.get(a), swaps.get(b)];
  if (left === undefined && right === undefined) return node;
  const flag = (on: boolean): AttributeValue => ({ kind: "int", value: on ? 1 : 0 });
  return {
    ...node,
    op: FUSED,
    inputs: [left ?? a, right ?? b],
    attributes: { transA: flag(left !== undefined), transB: flag(right !== undefined) },
  };
}

function swapsLastTwo(node: Node): boolean {
  const perm = node.attributes["perm"];
  if (node.op !== "Transpose" || perm?.kind !== "ints") return false;
  const rank = perm.value.length;
  return (
    rank >= 2 &&
    perm.value.every((from, to) => {
      if (to === rank - 2) return from === rank - 1;
      return to === rank - 1 ? from === rank - 2 : from === to;
    })
  );
}
