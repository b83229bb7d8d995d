/**
 * Replicas of a sharded step: each has a range of the micro-batches, and sums it by itself. The
 * rest of the one tree is summed at the end of a step, between the ranks that own the same part in
 * each replica.
 */
import { gradientBuffer } from "./buffers.ts";
import type { Layout } from "./layout.ts";
import type { RankGroups } from "./levels.ts";
import type { CollectiveStage, ProgramBuilder, RunStage } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { evenRanges, planLevels, type Range } from "./shares.ts";
import type { Span } from "./spans.ts";
import { planWaves, type Wave, type Waves } from "./waves.ts";

export interface ReplicaOptions {
  /** Its inner groups are the replicas. */
  readonly groups: RankGroups;
  readonly microBatches: number;
  /** The number of this rank's replica. */
  readonly replica: number;
  /** The number of micro-batches of a replica that run at once. */
  readonly perWave: number;
  readonly reproducible: boolean;
  /** Whether micro-batches write what they make into accumulators. Default: false. */
  readonly isInPlace?: boolean;
}

export interface Replicas {
  /** The micro-batches of each replica. */
  readonly ranges: readonly Range[];
  /** Those of this rank's replica. */
  readonly waves: readonly Wave[];
  /** The buffers in which gradients are summed. */
  readonly accumulators: readonly string[];
  /** Those of them that have the sums of this replica, after its last wave. */
  readonly sums: readonly string[];
  /** After the last wave: sums over all replicas, in the place of this one's. */
  sum(spans: readonly Span[], what: string): readonly (RunStage | CollectiveStage)[];
}

/** @param layout of gradients */
export function planReplicas(
  program: ProgramBuilder,
  layout: Layout,
  { groups, microBatches, replica, perWave, reproducible, isInPlace = false }: ReplicaOptions,
): Replicas {
  const ranges = evenRanges(microBatches, groups.members.length);
  const isOne = ranges.length === 1;
  const members = ranges.map((_, index) => [index]);
  const levels = planLevels(ranges, members, { reproducible });
  const planned = ranges.map((_, index): Waves => {
    const own = levels.ranks.contributions.filter(({ rank }) => rank === index);
    return planWaves(own, { perWave, isInPlace });
  });
  const { waves } = planned[replica] as Waves;
  // All ranks of a run have the same shared buffers.
  const count = Math.max(...planned.map((own) => own.accumulators));
  const accumulators = Array.from({ length: count }, (_, index) =>
    program.buffer(gradientBuffer(index), layout.byteLength),
  );
  if (!isOne) for (const name of accumulators) program.shared.add(name);
  const own = levels.ranks.contributions.filter(({ rank }) => rank === replica);
  const { outer } = groups.names;
  const names = { all: outer, inner: outer, outer };
  const reducer = new Reducer(program, { rank: replica, names, levels, bufferOf: gradientBuffer });
  return {
    ranges,
    waves,
    accumulators,
    sums: own.map(({ slot }) => gradientBuffer(slot)),
    sum: (spans, what) =>
      isOne || spans.length === 0 ? [] : reducer.stages(spans, `${what}, of all replicas`),
  };
}
