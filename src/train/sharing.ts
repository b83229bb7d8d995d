/** How ranks share a step: whose memory they can read, who has which micro-batches, how gradients travel. */
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { bucketBytes } from "../parallel/index.ts";
import { evenRanges, type Groups, type Range, type TrainingShare } from "../program/index.ts";
import { byteLength } from "../tensor/index.ts";

/** A rank among others that train the same model, each on its micro-batches of every step. */
export interface Ranks {
  /** Its engine is the trainer's. The trainer does not close it. */
  readonly group: Group;
  /** The micro-batches of each rank; even unless told. */
  readonly ranges?: readonly Range[];
  /** Whether ranges follow the speeds of the ranks; yes, but for given ranges. It changes no bits. */
  readonly adapt?: boolean;
  /** The clock that measures speeds, in milliseconds. */
  readonly now?: () => number;
}

export interface SharingOptions {
  readonly model: Model;
  readonly microBatches?: number | undefined;
  readonly ranks?: Ranks | undefined;
  /** Whether any number of ranks gives the same bits, which takes sums in one order; yes unless told. */
  readonly reproducible?: boolean | undefined;
  /** Of gradients that travel together between machines; chosen from the group's measured costs unless told. */
  readonly bucketBytes?: number | undefined;
}

/** Undefined for a rank that is alone. @throws INVALID_OPTION */
export function shareOf(options: SharingOptions): TrainingShare | undefined {
  const { ranks, microBatches = 1, reproducible } = options;
  if (ranks === undefined || ranks.group.size === 1) return undefined;
  const { rank, size } = ranks.group;
  if (size > microBatches) {
    throw new LockstepError(
      "INVALID_OPTION",
      `A step of ${microBatches} micro-batches cannot be shared by ${size} workers.`,
      { hint: `Set microBatches in the run to ${size} or more, or use fewer workers.` },
    );
  }
  const machines = machinesOf(ranks.group);
  return {
    rank,
    ranges: ranks.ranges ?? evenRanges(microBatches, size),
    machines,
    reproducible,
    // Within a machine nothing is won by buckets: there, sums take milliseconds of the cores that compute.
    ...(machines.length > 1 ? { bucketBytes: bucketOf(options, ranks.group), overlap: true } : {}),
  };
}

/** The ranks of each machine. Machines of different sizes have no ranks of the same place: then each rank is one. */
export function machinesOf({ transport }: Group): readonly (readonly number[])[] {
  const { machines, size } = transport;
  const isEven = machines.every((own) => own.length === machines[0]?.length);
  const follow = machines.flat().every((rank, index) => rank === index);
  return isEven && follow ? machines : Array.from({ length: size }, (_, rank) => [rank]);
}

/** The groups of all axes. All ranks call it. */
export async function groupsOf(all: Group): Promise<Groups> {
  const machines = machinesOf(all);
  const own = machines.find((ranks) => ranks.includes(all.rank)) ?? [all.rank];
  if (machines.length === 1 || own.length === 1) return { all };
  const place = own.indexOf(all.rank);
  return {
    all,
    machine: await all.subgroup(own),
    across: await all.subgroup(machines.map((ranks) => ranks[place] as number)),
  };
}

function bucketOf({ bucketBytes: wanted, model }: SharingOptions, { costs }: Group): number {
  if (wanted !== undefined) return wanted;
  const total = model.parameters.reduce(
    (sum, { name }) => sum + byteLength(typeOf(model.graph, name)),
    0,
  );
  const { messageUs, wireUsPerByte } = costs.between;
  return bucketBytes({ latency: messageUs / 1e6, bytesPerSecond: 1e6 / wireUsPerByte }, total);
}
