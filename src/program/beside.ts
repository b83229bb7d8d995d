/** What is summed over micro-batches and ranks beside the gradients, in the same flat vector: it takes no round of its own. */
import type { Model } from "../nn/index.ts";
import { isFloat, type TensorType } from "../tensor/index.ts";
import { type GradientGraph, lossType } from "./gradient.ts";
import type { Layout } from "./layout.ts";

/** Not names that a parameter can have. */
export const LOSS = "/loss";
export const STOP = "/stop";
export const PACES = "/paces";

/**
 * Loss, wishes to stop, paces, running statistics; nothing for a single micro-batch.
 * @param ranks undefined for one alone, which has no pace to tell
 */
export function summedBeside(
  model: Model,
  microBatches: number,
  ranks: number | undefined,
): { readonly name: string; readonly type: TensorType }[] {
  if (microBatches === 1) return [];
  const stop: TensorType = { dtype: "float32", shape: [] };
  const paces: TensorType = { dtype: "float32", shape: [ranks ?? 0] };
  return [
    { name: LOSS, type: lossType(model) },
    { name: STOP, type: stop },
    ...(ranks === undefined ? [] : [{ name: PACES, type: paces }]),
    ...model.states.filter(({ type }) => isFloat(type.dtype)),
  ];
}

/** Names in the layout by the outputs of the gradient graph that are summed there. */
export function summedOutputs(
  { loss, states }: Model,
  { gradients }: GradientGraph,
  { entries }: Layout,
): Map<string, string> {
  const summed = [
    [loss, LOSS] as const,
    ...states.map(({ next, name }) => [next, name] as const),
    ...[...gradients].map(([name, output]) => [output, name] as const),
  ];
  return new Map(summed.filter(([, name]) => entries.has(name)));
}
