/**
 * Which micro-batches each pipeline of a step computes, and when their gradients are summed: a range
 * each, which it sums by itself; or, where the ranks of a stage share out its gradients, neighbours of
 * each wave, which are summed behind each turn.
 */
import { LockstepError } from "../errors.ts";
import { isOfKind, MICRO_BATCH, type StepGraph, type StepTask } from "../plan/index.ts";
import type { FlatVectors } from "./flat.ts";
import { placeIn, type RankGroups } from "./levels.ts";
import type { ProgramBuilder } from "./program.ts";
import { planReplicas, type Replicas } from "./replica-sums.ts";
import type { RowGather } from "./sums.ts";
import type { Wave } from "./waves.ts";

export interface StageWavesOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly rank: number;
  /** Each is a pipeline. */
  readonly groups: RankGroups;
  /** Each is the pipelines that share out their state. */
  readonly owners: RankGroups;
  /** Micro-batches that a rank may run at once. */
  readonly lanes: number;
}

export interface StageWaves {
  readonly lanes: number;
  /** Of the pipelines that sum together, or of each. */
  readonly replicas: Replicas;
  /** The micro-batches of this rank's pipeline. */
  readonly own: readonly number[];
  /** How many each pipeline of the run has room for in its turns, of which all have as many. */
  readonly counts: readonly number[];
  readonly rows: readonly RowGather[];
  /** The name of the group of ranks that share out the gradients of a stage; undefined if none do. */
  readonly sharers: string | undefined;
  /** The micro-batches of a wave that this rank's pipeline computes at once. */
  ofWave(wave: Wave): readonly number[];
}

/** A task for each micro-batch, behind or before a piece of the pass. */
export function isOfEach(task: StepTask): boolean {
  return "each" in task && task.each === MICRO_BATCH;
}

/** @throws INVALID_OPTION if a pipeline has fewer micro-batches than stages */
export function planStageWaves(
  program: ProgramBuilder,
  { step, vectors, rank, groups, owners, lanes: most }: StageWavesOptions,
): StageWaves {
  const { microBatches } = step;
  const reduces = step.tasks.filter(isOfKind("reduce"));
  const isShared = reduces.some(isOfEach);
  const stages = groups.members[0]?.length ?? 1;
  const least = Math.floor(microBatches / groups.members.length);
  if (least < stages) throw tooFew(step, stages, groups.members.length);
  const lanes = Math.min(most, least);
  const summing = isShared ? owners : groups;
  const { number, ranks, place } = placeIn(summing.members, rank);
  const pipelines = ranks.length / stages;
  const ofPipeline = ({ first, count }: Wave, pipeline: number) =>
    Array.from({ length: lanes }, (_, lane) => pipeline * lanes + lane)
      .filter((index) => index < count)
      .map((index) => first + index);
  const ofWave = (wave: Wave) => ofPipeline(wave, Math.floor(place / stages));
  const replicas = planReplicas(program, vectors.gradients, {
    groups: summing,
    microBatches,
    replica: number,
    perWave: pipelines * lanes,
    reproducible: reduces.every(({ combination }) => combination === "tree"),
    isInPlace: !isShared,
  });
  const { ranges, waves } = replicas;
  const sharers = isShared ? nameOfSharers(owners, groups) : undefined;
  const ofWaves = waves.map((wave): RowGather => {
    const counts = Array.from({ length: pipelines }, (_, at) => ofPipeline(wave, at).length);
    return { group: sharers ?? "", first: wave.first, counts };
  });
  const all = { group: summing.names.outer, first: 0, counts: ranges.map(({ count }) => count) };
  return {
    lanes,
    replicas,
    own: waves.flatMap(ofWave),
    counts: ranges.map(({ count }) => Math.ceil(count / (pipelines * lanes)) * lanes),
    rows: [...(isShared ? ofWaves : []), ...(ranges.length === 1 ? [] : [all])],
    sharers,
    ofWave,
  };
}

function nameOfSharers(owners: RankGroups, groups: RankGroups): string {
  const axes = (owners.axes ?? []).filter((axis) => groups.axes?.includes(axis) !== true);
  return axes.join(" and ");
}

function tooFew(step: StepGraph, stages: number, pipelines: number): LockstepError {
  const each = pipelines === 1 ? "" : ` for each of ${pipelines} pipelines`;
  return new LockstepError(
    "INVALID_OPTION",
    `parallel: pipeline ${stages} needs ${stages} micro-batches or more${each}, and a step has ${step.microBatches}.`,
    {
      hint: `Set microBatches in the run to ${stages * pipelines} or more; with 4 times as many, ranks wait for each other less than a fifth of the time.`,
    },
  );
}
