/**
 * ZeRO-2 and ZeRO-3 of stages: the ranks that compute the same stage for other micro-batches share out
 * its gradients. The part of a stage that makes them is cut into pieces, behind each of which its
 * gradients go to those who sum them. Who has which parameters and slots, the pipeline has said
 * already; with ZeRO-3 what a piece needs of them is brought together just before it.
 */
import {
  type ComputeTask,
  cutAtUnits,
  cutWhereReady,
  isPiece,
  type StepGraph,
} from "../plan/index.ts";
import { bucketsOf } from "./buckets.ts";

/**
 * Cuts the last part of each stage, which makes its gradients. A part that is in pieces already stays
 * so.
 * @param bucketBytes a piece ends when its gradients take this many bytes
 */
export function cutLastParts(step: StepGraph, bucketBytes: number): StepGraph {
  return lastParts(step)
    .filter((part) => part.length === 1)
    .flat()
    .reduce((current, piece) => {
      const lists = bucketsOf(current, [piece], bucketBytes);
      return lists.length < 2 ? current : cutWhereReady(current, piece, lists).step;
    }, step);
}

/** Cuts the other parts of stages at units of parameters. */
export function cutOtherParts(step: StepGraph): StepGraph {
  const last = lastParts(step).flat();
  return partsOfStages(step)
    .filter((part) => part.length === 1)
    .flat()
    .filter((piece) => !last.includes(piece))
    .reduce((current, piece) => cutAtUnits(current, piece).step, step);
}

/** The pieces that make the gradients of their stages, as far as these are summed behind them. */
export function lastPieces(step: StepGraph): readonly ComputeTask[] {
  return lastParts(step).flat();
}

/** By stage: the pieces of its last part. */
function lastParts(step: StepGraph): ComputeTask[][] {
  const parts = partsOfStages(step);
  const stageOf = ([first]: readonly ComputeTask[]) => first?.stage?.stage;
  return parts.filter(
    (part, at) => !parts.slice(at + 1).some((other) => stageOf(other) === stageOf(part)),
  );
}

/** The pieces of each part of each stage. */
function partsOfStages(step: StepGraph): ComputeTask[][] {
  const parts = new Map<string, ComputeTask[]>();
  for (const piece of step.tasks.filter(isPiece)) {
    const name = `${piece.stage?.stage} ${piece.stage?.direction}`;
    parts.set(name, [...(parts.get(name) ?? []), piece]);
  }
  return [...parts.values()];
}
