/**
 * Restores facts about training that the newer exporter's record has and its nodes do not: where no
 * gradient flows, and which normalizations were in training mode. It also finds what files without
 * such a record leave open.
 */
import type { RawGraph } from "../onnx/index.ts";
import type { GraphEdit } from "./edit.ts";
import type { Operation } from "./exported.ts";

export function restoreTraining(
  graph: RawGraph,
  operations: readonly (Operation | undefined)[],
  edit: GraphEdit,
): string[] {
  const made = new Set(graph.node.flatMap(({ output }) => output));
  const counts = new Map<string, number>();
  for (const operation of operations) {
    if (operation !== undefined) counts.set(operation.name, (counts.get(operation.name) ?? 0) + 1);
  }
  const unplaced: string[] = [];
  for (const [node, operation] of operations.entries()) {
    const opType = graph.node[node]?.opType;
    if (operation?.operator === "detach") edit.detach(node);
    if (operation?.operator === "embedding" && opType === "Gather") {
      const padding = Number(operation.args.split(", ")[2] ?? "-1");
      if (padding >= 0) edit.detach(node, { index: 1, equals: padding });
    }
    if (opType === "BatchNormalization" && isTraining(operation)) edit.trainNormalization(node);
    // The optimizer removes a detach, but the operation that read it still mentions it.
    const gone = operation?.reads.filter((read) => DETACHED.test(read) && !made.has(read)) ?? [];
    if (operation === undefined || gone.length === 0) continue;
    const isPlain =
      counts.get(operation.name) === 1 && graph.node[node]?.input.length === operation.reads.length;
    if (!isPlain) unplaced.push(operation.name);
    for (const [input, read] of isPlain ? operation.reads.entries() : []) {
      if (gone.includes(read)) edit.detachInput({ node, input });
    }
  }
  const said = [...smoothed(operations), ...byFrequency(operations)];
  if (unplaced.length === 0) return said;
  const names = [...new Set(unplaced)].slice(0, 4).join(", ");
  return [
    ...said,
    `The exporter left out a detach that ${names} read, so gradients flow where PyTorch's do not. ` +
      `Export with optimize=False.`,
  ];
}

/** Says which embeddings divide gradients by how often an id occurs, which no graph does. */
function byFrequency(operations: readonly (Operation | undefined)[]): string[] {
  const found = operations.filter((operation) => {
    // (table, ids, padding_idx, scale_grad_by_freq)
    return operation?.operator === "embedding" && operation.args.split(", ")[3] === "True";
  });
  if (found.length === 0) return [];
  const names = [...new Set(found.map((operation) => operation?.name))].join(", ");
  return [
    `The gradients of ${names} are not scaled by frequency (scale_grad_by_freq) as PyTorch's.`,
  ];
}

/** Says which cross-entropies of the module smooth labels: the exporter drops that option. */
function smoothed(operations: readonly (Operation | undefined)[]): string[] {
  const found = operations.flatMap((operation) => {
    if (operation?.operator !== "cross_entropy_loss") return [];
    // (input, target, weight, reduction, ignore_index, label_smoothing)
    const smoothing = Number(operation.args.split(", ")[5] ?? "0");
    return smoothing > 0 ? [`${operation.name} (${smoothing})`] : [];
  });
  if (found.length === 0) return [];
  return [
    `The exporter dropped the label smoothing of ${[...new Set(found)].join(", ")}: the file computes the loss without it. ` +
      `For the smoothed one, export the logits and state crossEntropy({ …, labelSmoothing }).`,
  ];
}

const DETACHED = /^detach(_\d+)?$/;

/**
 * Whether a normalization was in training mode: the exporter writes the inference form in either
 * mode.
 */
function isTraining(operation: Operation | undefined): boolean {
  const { operator = "", args = "" } = operation ?? {};
  if (!/^(_?native_batch_norm|_native_batch_norm_legit|batch_norm)/.test(operator)) return false;
  return operator.includes("functional") || /\bTrue\b/.test(args.split(", ")[5] ?? "");
}

/**
 * A sentence about operations that stop gradients in modules and leave no trace in files without a
 * record.
 */
export function unrecorded(graph: RawGraph, isTrained: (weight: string) => boolean): string {
  const fixed = new Set(["", ...graph.initializer.map(({ name }) => name)]);
  for (const { input, output } of graph.node) {
    if (input.every((name) => fixed.has(name))) for (const name of output) fixed.add(name);
  }
  const hasEmbedding = graph.node.some(
    ({ opType, input: [table = "", ids = ""] }) =>
      opType === "Gather" && isTrained(table) && !fixed.has(ids),
  );
  const what = hasEmbedding ? "detach() or the padding_idx of embeddings" : "detach()";
  return (
    `PyTorch's older exporter does not record ${what}: gradients flow there although PyTorch stops them ` +
    `(docs/exporting.md).`
  );
}
