/**
 * What the newer exporter's record says of training and its nodes do not: where no gradient goes through, and which
 * normalizations were in training mode.
 */
import type { RawGraph } from "../schema.ts";
import type { GraphEdit } from "./edit.ts";
import type { Operation } from "./exported.ts";

export function restoreTraining(
  graph: RawGraph,
  operations: readonly (Operation | undefined)[],
  edit: GraphEdit,
): void {
  for (const [node, operation] of operations.entries()) {
    const opType = graph.node[node]?.opType;
    if (operation?.operator === "detach") edit.detach(node);
    if (operation?.operator === "embedding" && opType === "Gather") {
      const padding = Number(operation.args.split(", ")[2] ?? "-1");
      if (padding >= 0) edit.detach(node, { index: 1, equals: padding });
    }
    if (opType === "BatchNormalization" && isTraining(operation)) edit.trainNormalization(node);
  }
}

/** The exporter writes the form for inference, whatever mode the module was in. */
function isTraining(operation: Operation | undefined): boolean {
  const { operator = "", args = "" } = operation ?? {};
  if (!/^(_?native_batch_norm|_native_batch_norm_legit|batch_norm)/.test(operator)) return false;
  return operator.includes("functional") || /\bTrue\b/.test(args.split(", ")[5] ?? "");
}
