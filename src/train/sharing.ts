/** How ranks share a step: whose memory they can read, who has which micro-batches, how gradients travel. */
import type { Group } from "../collectives/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Topology } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import {
  bucketBytes,
  checkWorkers,
  chooseParallel,
  type Parallel,
  type ParallelOptions,
  type Strategy,
} from "../parallel/index.ts";
import type { Range } from "../program/index.ts";
import { byteLength } from "../tensor/index.ts";

/** A rank among others that train the same model, each on its micro-batches of every step. */
export interface Ranks {
  /** Its engine is the trainer's. The trainer does not close it. */
  readonly group: Group;
  /** The micro-batches of each rank. Default: as even as can be. */
  readonly ranges?: readonly Range[];
  /** Whether ranges follow the speeds of the ranks, which changes no bits. Default: true where no ranges are given. */
  readonly adapt?: boolean;
  /** The clock that measures speeds, in milliseconds. */
  readonly now?: () => number;
}

export interface SharingOptions extends ParallelOptions {
  readonly model: Model;
  readonly microBatches?: number | undefined;
  readonly ranks?: Ranks | undefined;
  /** Whether any number of ranks gives the same bits, which takes sums in one order. Default: true. */
  readonly reproducible?: boolean | undefined;
  /** Bytes of gradients that travel together between nodes. Default: chosen from the group's measured costs. */
  readonly bucketBytes?: number | undefined;
  /** Further rewrites of the step, behind those that are chosen. */
  readonly strategies?: readonly Strategy[] | undefined;
}

/** The options of a run that say how ranks share a step. */
export function sharingOf(run: Omit<SharingOptions, "model" | "microBatches" | "ranks">) {
  const { reproducible, bucketBytes, parallel, zero, recompute } = run;
  return { reproducible, bucketBytes, parallel, zero, recompute };
}

/** @param overlap whether gradients travel beside computation where they travel at all @throws INVALID_OPTION */
export function parallelOf(options: SharingOptions, overlap: boolean): Parallel {
  const { ranks, microBatches = 1, reproducible = true, parallel, zero, recompute } = options;
  const group = ranks?.group;
  const topology: Topology = { nodes: group?.transport.nodes ?? [[0]] };
  const size = group?.size ?? 1;
  checkWorkers(size, microBatches);
  return chooseParallel({
    topology,
    parallel,
    zero,
    recompute,
    combination: reproducible ? "tree" : "any",
    buckets: group && { bucketBytes: bucketOf(options, group), overlap },
  });
}

function bucketOf({ bucketBytes: wanted, model }: SharingOptions, { costs }: Group): number {
  if (wanted !== undefined) return wanted;
  const { messageUs, wireUsPerByte } = costs;
  const link = { latency: messageUs / 1e6, bytesPerSecond: 1e6 / wireUsPerByte };
  return bucketBytes(link, parameterBytes(model));
}

/** Of all parameters together. */
export function parameterBytes(model: Model): number {
  return model.parameters.reduce((sum, { name }) => sum + byteLength(typeOf(model.graph, name)), 0);
}
