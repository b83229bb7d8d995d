/** From a gradient graph and what ranks share to stages: buckets, the cut between them, and who keeps which part of the sum. */
import type { Model } from "../nn/index.ts";
import type { Accumulation } from "./accumulate.ts";
import type { Term } from "./batch-sums.ts";
import { summedOutputs } from "./beside.ts";
import { type CutGradient, cutGradient } from "./cut.ts";
import type { GradientGraph } from "./gradient.ts";
import { GradientStages } from "./gradient-stages.ts";
import type { LayoutGroup } from "./layout.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, type Piece, wholePieces } from "./pieces.ts";
import type { ParameterPlan } from "./plan-parameters.ts";
import type { ProgramBuilder } from "./program.ts";
import { Reducer } from "./reduce.ts";
import type { Levels, TrainingShare } from "./shares.ts";

export interface PlanGradientsOptions {
  readonly model: Model;
  readonly terms: readonly Term[];
  readonly gradient: GradientGraph;
  readonly parameters: ParameterPlan;
  readonly levels: Levels;
  readonly share: TrainingShare;
  readonly sums: Accumulation;
  readonly lanes: number;
  readonly bufferOf: (index: number) => string;
}

export interface GradientsPlan {
  readonly stages: GradientStages;
  /** Undefined where the gradient graph runs whole. */
  readonly cut: CutGradient | undefined;
  /** In how many pieces gradients are summed over ranks. */
  readonly buckets: number;
  readonly ownership: Ownership | undefined;
}

/** How gradients are made and summed, over ranks too; the same for both sides. */
export function planGradients(
  program: ProgramBuilder,
  options: PlanGradientsOptions,
): GradientsPlan {
  const { model, terms, gradient, share, levels, parameters, bufferOf } = options;
  const { gradients: layout, updates } = parameters;
  const isAlone = share.ranges.length === 1;
  const { bucketBytes, overlap = false, machines } = share;
  const names = summedOutputs(model, terms, gradient, layout);
  const isCut = bucketBytes !== undefined && machines.length > 1;
  const buckets = isCut ? cutGradient(gradient, [...names.keys()], bucketBytes) : undefined;
  const cut = overlap ? buckets : undefined;
  const inBuckets = (found: CutGradient): Piece[][] =>
    bucketPieces(
      layout,
      found.buckets.map((bucket) => bucket.map((output) => names.get(output) as string)),
    );
  const pieces = buckets === undefined ? [wholePieces(layout)] : inBuckets(buckets);
  // Whoever updates a part of a group alone needs no more of the gradient.
  const keeps = ({ byteOffset }: LayoutGroup) =>
    updates.some(
      ({ rule, group }) => rule.granularity === "element" && group.byteOffset === byteOffset,
    );
  const reducing = { rank: share.rank, levels, bufferOf, keeps };
  const reducer = isAlone ? undefined : new Reducer(program, layout, reducing);
  const { sums, lanes } = options;
  const making = { program, layout, sums, lanes, bufferOf, reducer, buckets: pieces, cut };
  const stages = new GradientStages(making);
  return { stages, cut, buckets: pieces.length, ownership: reducer?.ownership(pieces.flat()) };
}
