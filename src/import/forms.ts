/**
 * How operations of PyTorch and nodes of ONNX store their weights: their order, whether they are
 * transposed, and their size.
 */
import type { RawNode } from "../onnx/index.ts";
import type { Operation } from "./exported.ts";
import type { Layout } from "./weights.ts";

/** The names that an operation reads, in the order in which nodes of ONNX read them. */
export function operands(operation: Operation | undefined): readonly string[] {
  if (operation === undefined) return [];
  const { operator, reads } = operation;
  const [bias, ...factors] = reads;
  const isSum = operator === "addmm" || operator === "baddbmm" || operator === "addmv";
  return isSum && bias !== undefined ? [...factors, bias] : reads;
}

/** The layout of a weight at an input of a node, from what the operation does with it. */
export function layoutOf(
  node: RawNode,
  input: number,
  rank: number,
  operation: Operation | undefined,
): Layout {
  const operator = operation?.operator ?? "";
  if (operator === "linear" && rank === 2 && input === 1) return matrixLayout(node);
  const isVector = operator.startsWith("prelu") || operator.includes("norm");
  return isVector && rank > 1 && !operator.includes("layer_norm") ? "flat" : "same";
}

/** The layout of the weight of a layer at input 1 of its node. */
export function matrixLayout(node: RawNode): Layout {
  const isTurned = node.opType === "MatMul" || (node.opType === "Gemm" && !flag(node, "transB"));
  return isTurned ? "transposed" : "same";
}

function flag(node: RawNode, name: string): boolean {
  return node.attribute.some((attribute) => attribute.name === name && attribute.i === 1);
}

export function outputChannels(node: RawNode, dims: readonly number[]): number | undefined {
  if (node.opType === "Gemm") return dims[flag(node, "transB") ? 0 : 1];
  if (node.opType === "Conv") return dims[0];
  if (node.opType !== "ConvTranspose") return undefined;
  const group = node.attribute.find(({ name }) => name === "group")?.i ?? 1;
  return (dims[1] ?? 0) * group;
}
