/** What is summed over micro-batches and ranks beside the gradients, in the same flat vector: it takes no round of its own. */
import type { Model } from "../nn/index.ts";
import { isFloat, type TensorType } from "../tensor/index.ts";
import type { Term } from "./batch-sums.ts";
import type { GradientGraph } from "./gradient.ts";
import type { Layout } from "./layout.ts";

/** Not names that a parameter can have. */
export const STOP = "/stop";
export const PACES = "/paces";

/** The sum of a term of the loss. */
export function termName(index: number): string {
  return index === 0 ? "/loss" : `/loss.${index}`;
}

/**
 * Terms of the loss, wishes to stop, paces, running statistics; nothing for a single micro-batch.
 * @param ranks undefined for one alone, which has no pace to tell
 */
export function summedBeside(
  model: Model,
  terms: readonly Term[],
  microBatches: number,
  ranks: number | undefined,
): { readonly name: string; readonly type: TensorType }[] {
  if (microBatches === 1) return [];
  const stop: TensorType = { dtype: "float32", shape: [] };
  const paces: TensorType = { dtype: "float32", shape: [ranks ?? 0] };
  return [
    ...terms.map(({ type }, index) => ({ name: termName(index), type })),
    { name: STOP, type: stop },
    ...(ranks === undefined ? [] : [{ name: PACES, type: paces }]),
    ...model.states.filter(({ type }) => isFloat(type.dtype)),
  ];
}

/** Names in the layout by the outputs of the gradient graph that are summed there. */
export function summedOutputs(
  { states }: Model,
  terms: readonly Term[],
  { gradients }: GradientGraph,
  { entries }: Layout,
): Map<string, string> {
  const summed = [
    ...terms.map(({ output }, index) => [output, termName(index)] as const),
    ...states.map(({ next, name }) => [next, name] as const),
    ...[...gradients].map(([name, output]) => [output, name] as const),
  ];
  return new Map(summed.filter(([, name]) => entries.has(name)));
}
