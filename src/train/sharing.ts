/**
 * How ranks share a step: whose memory they can read, who has which micro-batches, how gradients
 * travel.
 */
import { DEFAULT_COSTS, type Group } from "../collectives/index.ts";
import type { Device } from "../engine/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Topology } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  bucketBytes,
  chooseParallel,
  DEFAULT_FLOPS,
  type Link,
  type Parallel,
  type ParallelOptions,
  type Strategy,
  statedIn,
} from "../parallel/index.ts";
import type { StepGraph } from "../plan/index.ts";
import type { Range } from "../program/index.ts";
import { byteLength } from "../tensor/index.ts";
import { diskFor, diskRoom } from "./disk.ts";
import { memoryLimit, type Room } from "./memory.ts";

/** A rank among others that train the same model. Each computes its micro-batches of every step. */
export interface Ranks {
  /** The group uses the trainer's engine, and is not closed by the trainer. */
  readonly group: Group;
  /** The micro-batches of each rank. Default: as even as possible. */
  readonly ranges?: readonly Range[];
  /**
   * Whether ranges follow the speeds of the ranks; this changes no bits. Default: true if no ranges
   * are given.
   */
  readonly adapt?: boolean;
  /**
   * What all ranks have, the same on all: how the step is shared is chosen from it. Default: memory
   * without a limit.
   */
  readonly room?: Room;
  /** The clock that measures speeds, in milliseconds. */
  readonly now?: () => number;
}

/** What the plan of a step depends on: who shares it, but not how they reach each other. */
export interface SharedBy extends Pick<Ranks, "ranges" | "room"> {
  readonly group: Pick<Group, "rank" | "size" | "costs"> & {
    readonly transport: Pick<Group["transport"], "nodes">;
  };
}

export interface SharingOptions extends ParallelOptions {
  readonly model: Model;
  readonly microBatches?: number | undefined;
  readonly ranks?: SharedBy | undefined;
  /**
   * Whether any number of ranks gives the same bits, which requires sums in one order. Default:
   * true.
   */
  readonly reproducible?: boolean | undefined;
  /**
   * Bytes of gradients that travel together between nodes. Default: chosen from the group's
   * measured costs.
   */
  readonly bucketBytes?: number | undefined;
  /**
   * A rank whose speed stays below this part of the others' is too slow for the run. Default: 0,
   * none is.
   */
  readonly excludeBelow?: number | undefined;
  /** Strategies that rewrite the step after the chosen ones. */
  readonly strategies?: readonly Strategy[] | undefined;
}

export interface ChoosingOptions extends SharingOptions {
  readonly engine: Device;
  readonly optimizer: Optimizer;
  readonly offloadFolder?: string | undefined;
}

/** The options of a run that say how ranks share a step. */
export function sharingOf(run: Omit<SharingOptions, "model" | "microBatches" | "ranks">) {
  const { reproducible, bucketBytes, excludeBelow } = run;
  return { reproducible, bucketBytes, excludeBelow, ...statedIn(run) };
}

/**
 * @param step of one process, in the form in which the device runs it
 * @param stated what is asked for, or was chosen before
 * @param overlap whether gradients travel beside computation where they travel at all
 * @throws INVALID_OPTION, OUT_OF_MEMORY
 */
export function parallelOf(
  options: ChoosingOptions,
  step: StepGraph,
  stated: ParallelOptions,
  overlap = true,
): Parallel {
  const { ranks, reproducible = true, optimizer } = options;
  const group = ranks?.group;
  const topology: Topology = { nodes: group?.transport.nodes ?? [[0]] };
  const link = linkOf(group);
  return chooseParallel({
    ...statedIn(stated),
    topology,
    step,
    optimizer,
    machine: { ...roomFor(options), flopsPerSecond: DEFAULT_FLOPS, link },
    dividesOnlyIfNeeded: true,
    combination: reproducible ? "tree" : "any",
    buckets: group && { bucketBytes: bucketOf(options, group), overlap },
  });
}

/** What each rank has. Without a limit, all ranks choose the same whatever their threads are. */
export function roomFor({
  ranks,
  engine,
  offloadFolder,
}: Pick<ChoosingOptions, "ranks" | "engine" | "offloadFolder">): Room {
  if (ranks === undefined) {
    const disk = diskFor(diskRoom(offloadFolder), 1);
    return { memory: memoryLimit(), lanes: engine.threads, disk };
  }
  return ranks.room ?? { memory: Number.POSITIVE_INFINITY, lanes: 1 };
}

function bucketOf(
  { bucketBytes: wanted, model }: SharingOptions,
  group: SharedBy["group"],
): number {
  return wanted ?? bucketBytes(linkOf(group), parameterBytes(model));
}

function linkOf(group: SharedBy["group"] | undefined): Link {
  const { messageUs, wireUsPerByte } = group?.costs ?? DEFAULT_COSTS;
  return { latency: messageUs / 1e6, bytesPerSecond: 1e6 / wireUsPerByte };
}

/** Returns the bytes of all parameters together. */
export function parameterBytes(model: Model): number {
  return model.parameters.reduce((sum, { name }) => sum + byteLength(typeOf(model.graph, name)), 0);
}
