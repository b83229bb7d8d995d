/**
 * Recognizes forms that converters other than PyTorch's exporter write: tf2onnx for Keras, jax2onnx
 * for Flax.
 */
import type { RawGraph, RawNode, RawTensor } from "../onnx/index.ts";

/**
 * Operators that may lie between the square root of a variance and the value that is scaled or
 * shifted.
 */
const BETWEEN = /^(Mul|Div|Add|Sub|Neg|Reciprocal|Reshape|Cast)$/;
const MOST_BETWEEN = 4;

/**
 * Finds the scales and shifts of normalizations that were written as elementary operators: they are
 * multiplied with or added to a value that was divided by a square root.
 */
export class WrittenOut {
  readonly #makers = new Map<string, RawNode>();

  constructor(graph: RawGraph) {
    for (const node of graph.node) for (const name of node.output) this.#makers.set(name, node);
  }

  /** Whether `weight`, which `node` reads, scales or shifts a normalized value. */
  scalesOrShifts({ opType, input }: RawNode, weight: string): boolean {
    if (opType !== "Mul" && opType !== "Add") return false;
    return input.some((other) => other !== weight && this.#isDivided(other, MOST_BETWEEN));
  }

  #isDivided(name: string, depth: number): boolean {
    const node = this.#makers.get(name);
    if (node === undefined || depth === 0) return false;
    const roots = node.opType === "Div" ? node.input.slice(1) : node.input;
    const isDivision = node.opType === "Div" || node.opType === "Reciprocal";
    if (isDivision && roots.some((root) => this.#makers.get(root)?.opType === "Sqrt")) return true;
    return BETWEEN.test(node.opType) && node.input.some((own) => this.#isDivided(own, depth - 1));
  }
}

/** The notices for a file of tf2onnx, which omits biases of zeros and folds normalizations. */
export function tensorflowNotices(
  graph: RawGraph,
  floats: ReadonlyMap<string, RawTensor>,
): readonly string[] {
  const folded = [...floats.keys()].filter((name) => /\/batchnorm\//.test(name));
  const bare = graph.node.filter((node) => lacksBias(graph, floats, node)).map(({ name }) => name);
  const list = (names: readonly string[]) =>
    `${names.slice(0, 6).join(", ")}${names.length > 6 ? ` and ${names.length - 6} more` : ""}`;
  return [
    ...(folded.length > 0
      ? [
          `tf2onnx folded batch normalization into ${list(folded)}: scale, shift and statistics are one there, so the trained model differs ` +
            "from Keras's (docs/exporting.md).",
        ]
      : []),
    ...(bare.length > 0
      ? [
          `tf2onnx leaves out biases of zeros, and these have none: ${list(bare)}. If the model has biases there, they are not in the ` +
            "file and not trained: give them other values before the export (docs/exporting.md).",
        ]
      : []),
  ];
}

/** Whether a node multiplies by weights and no vector of the file is added to the product. */
function lacksBias(
  graph: RawGraph,
  floats: ReadonlyMap<string, RawTensor>,
  { opType, input, output }: RawNode,
): boolean {
  if (!/^(MatMul|Gemm|Conv)$/.test(opType) || !floats.has(input[1] ?? "")) return false;
  if ((input[2] ?? "") !== "") return false;
  const isAdded = (name: string): boolean =>
    graph.node.some((node) => {
      if (!node.input.includes(name)) return false;
      if (node.opType === "Add") return node.input.some((other) => floats.has(other));
      return /^(Reshape|Squeeze|Transpose)$/.test(node.opType) && isAdded(node.output[0] ?? "");
    });
  return !isAdded(output[0] ?? "");
}
