/**
 * The loss of a whole batch from its micro-batches: what each micro-batch computes, and what is
 * computed from their sums at the end.
 */
import { LockstepError } from "../../errors.ts";
import { typeOf, withOutputs } from "../../graph/index.ts";
import type { Model } from "../../nn/index.ts";
import { operatorTable } from "../../ops/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { type BatchSums, isInseparable, planBatchSums } from "./batch-sums.ts";
import { resized, sizeOf } from "./model-batch.ts";

/** @throws INVALID_OPTION if the loss of a batch cannot be computed from its micro-batches */
export function planLoss(model: Model, microBatches: number): BatchSums {
  const kept = model.states.map(({ next }) => next);
  const share = 1 / microBatches;
  const options = { part: model, share, kept };
  if (microBatches === 1) {
    if (!mayDivide(model)) return plainLoss(model);
    const whole = resized(model, 2 * sizeOf(model));
    if (sizeOf(whole) === sizeOf(model)) return plainLoss(model);
    const found = planBatchSums(model.loss, { ...options, whole });
    if (isInseparable(found)) return plainLoss(model);
    const counts = found.totals === undefined ? found.counts : found.totals.counts;
    return counts.length > 0 ? found : plainLoss(model);
  }
  const whole = resized(model, microBatches * sizeOf(model));
  const found = planBatchSums(model.loss, { ...options, whole });
  if (!isInseparable(found)) return found;
  throw new LockstepError(
    "INVALID_OPTION",
    `The loss of "${model.name}" for a whole batch cannot be computed from ${microBatches} micro-batches: ${found.reason}.`,
    {
      hint:
        "Set microBatches to 1, so that the batch is computed whole (by one worker); or make the loss of sums and means over " +
        "samples, and quotients of them.",
      fields: { model: model.name, microBatches },
    },
  );
}

/** The loss without changes, for a batch that is computed as a whole. */
export function plainLoss(model: Model): BatchSums {
  const graph = withOutputs(model.graph, [model.loss, ...model.states.map(({ next }) => next)]);
  const type = typeOf(model.graph, model.loss);
  const term = { output: model.loss, type, factor: 1, trained: true };
  return { graph, terms: [term], tail: undefined, counts: [], totals: undefined };
}

/**
 * Whether the loss, or a part of it, is divided by a computed number. Only then can the batch hold
 * nothing that counts.
 */
function mayDivide({ graph, loss }: Model): boolean {
  const { nodes, types, constants } = withOutputs(graph, [loss]);
  return nodes.some(({ op, inputs, outputs }) => {
    const rule = operatorTable.find(op)?.batch;
    const isNumber = (name = "") => elementCount(types.get(name)?.shape ?? [0]) === 1;
    const divisor = rule?.divides === undefined ? undefined : inputs[rule.divides];
    const divides = divisor !== undefined && !constants.has(divisor) && isNumber(divisor);
    return divides || (isNumber(outputs[0]) && typeof rule?.reduces === "function");
  });
}
