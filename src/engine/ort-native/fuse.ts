/**
 * Rewrites that ONNX Runtime's CPU provider runs faster than the portable form. A product with a
 * transposed operand reads it in place (`FusedMatMul`, or Gemm's own flags). ONNX Runtime's
 * optimizer would do this too, but it first merges neighbouring transpositions into one that no
 * product can absorb. Names, inputs and outputs of the graph do not change.
 */
import type { AttributeValue, Graph, Node } from "../../graph/index.ts";
import type { TensorType } from "../../tensor/index.ts";

const FUSED = "com.microsoft::FusedMatMul";
/** The element types that the fused kernel supports. */
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
  const [a = "", b = "", ...rest] = node.inputs;
  const [left, right] = [swaps.get(a), swaps.get(b)];
  if (left === undefined && right === undefined) return node;
  const inputs = [left ?? a, right ?? b, ...rest];
  if (node.op === "Gemm") {
    const transA = flag(isOn(node, "transA") !== (left !== undefined));
    const transB = flag(isOn(node, "transB") !== (right !== undefined));
    return { ...node, inputs, attributes: { ...node.attributes, transA, transB } };
  }
  if (node.op !== "MatMul" || !FUSED_TYPES.has(graph.types.get(a)?.dtype ?? "")) return node;
  const attributes = { transA: flag(left !== undefined), transB: flag(right !== undefined) };
  return { ...node, op: FUSED, inputs, attributes };
}

/** A result counts as wide if it has at least this many times as many columns as rows. */
const WIDE = 2;
/** At least this many products with the same A count as many. */
const MANY = 4;

/**
 * Gemm transposes A again for every 128 columns of the result, strip by strip. If the result is
 * wide, transposing A once beforehand is faster (docs/lab.md, 2026-11-26); an example is the
 * gradient of a matrix that widens. The same holds if many products read one A, such as the steps
 * of a recurrence. Session options keep ONNX Runtime from undoing this.
 */
export function transposeFirst(graph: Graph): Graph {
  const types = new Map(graph.types);
  const transposed = new Map<string, string>();
  const readers = new Map<string, number>();
  for (const node of graph.nodes) {
    const [a = ""] = node.inputs;
    if (isPlain(node)) readers.set(a, (readers.get(a) ?? 0) + 1);
  }
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    const [a = "", b = "", ...rest] = node.inputs;
    const type = graph.types.get(a) as TensorType;
    const [inner = 0, rows = 0] = type?.shape ?? [];
    const columns = graph.types.get(b)?.shape[1] ?? 0;
    const isWorth = columns >= WIDE * rows || (readers.get(a) ?? 0) >= MANY;
    if (!isPlain(node) || type.dtype !== "float32" || !isWorth) {
      nodes.push(node);
      continue;
    }
    const name = transposed.get(a) ?? freshName(types, `${a}/transposed`);
    if (!transposed.has(a)) {
      transposed.set(a, name);
      types.set(name, { dtype: type.dtype, shape: [rows, inner] });
      const perm: AttributeValue = { kind: "ints", value: [1, 0] };
      nodes.push({ op: "Transpose", name, inputs: [a], outputs: [name], attributes: { perm } });
    }
    const attributes = { ...node.attributes, transA: flag(false) };
    nodes.push({ ...node, inputs: [name, b, ...rest], attributes });
  }
  return transposed.size === 0 ? graph : { ...graph, nodes, types };
}

function isPlain(node: Node): boolean {
  return node.op === "Gemm" && isOn(node, "transA") && !isOn(node, "transB");
}

function freshName(taken: ReadonlyMap<string, unknown>, wanted: string): string {
  let name = wanted;
  for (let count = 2; taken.has(name); count++) name = `${wanted}_${count}`;
  return name;
}

function flag(on: boolean): AttributeValue {
  return { kind: "int", value: on ? 1 : 0 };
}

function isOn({ attributes }: Node, name: string): boolean {
  return (attributes[name]?.value ?? 0) !== 0;
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
