/** What can be asked of a group, and the algorithms that can answer. Pure: no transport, no memory. */
import { LockstepError } from "../errors.ts";
import type { DType } from "../tensor/index.ts";
import {
  directAllReduce,
  halvingAllReduce,
  ringAllReduce,
  scatterAllReduce,
  sharedAllReduce,
  stagedAllReduce,
  treeAllReduce,
} from "./all-reduce.ts";
import {
  hierarchicalAllGather,
  hierarchicalAllReduce,
  hierarchicalBroadcast,
  hierarchicalReduceScatter,
} from "./hierarchical.ts";
import {
  directAllGather,
  directAllToAll,
  directBroadcast,
  directReduceScatter,
  pairwiseAllToAll,
  receiveSchedule,
  sendSchedule,
  sharedAllGather,
  sharedBroadcast,
  sharedReduceScatter,
  treeBroadcast,
} from "./move.ts";
import type { Combination, Reduction } from "./reduction.ts";
import { ringAllGather, ringReduceScatter } from "./ring.ts";
import { evenParts, partsOf, type Schedule } from "./schedule.ts";

/** A collective without its memory. Counts are elements; all ranks ask for the same, but for send and receive. */
export type Collective =
  | {
      readonly kind: "allReduce";
      readonly count: number;
      readonly dtype: DType;
      readonly reduction: Reduction;
      /** What a mean divides by; the number of ranks unless told. */
      readonly divisor?: number;
      readonly combination?: Combination;
    }
  /** Rank r ends with the combination of part r, in its place; the other parts are then undefined. */
  | {
      readonly kind: "reduceScatter";
      readonly count: number;
      readonly dtype: DType;
      readonly reduction: Reduction;
      readonly counts?: readonly number[];
      readonly combination?: Combination;
    }
  /** Each rank's part, in its place, goes to all. */
  | {
      readonly kind: "allGather";
      readonly count: number;
      readonly dtype: DType;
      readonly counts?: readonly number[];
    }
  | {
      readonly kind: "broadcast";
      readonly count: number;
      readonly dtype: DType;
      readonly root: number;
    }
  /** `sendCounts[p]` elements for rank p, one after the other; `receiveCounts[p]` from it, into another place. */
  | {
      readonly kind: "allToAll";
      readonly dtype: DType;
      readonly sendCounts: readonly number[];
      readonly receiveCounts: readonly number[];
    }
  | { readonly kind: "send"; readonly count: number; readonly dtype: DType; readonly to: number }
  | {
      readonly kind: "receive";
      readonly count: number;
      readonly dtype: DType;
      readonly from: number;
    };

export type Algorithm =
  | "shared"
  | "staged"
  | "direct"
  | "scatter"
  | "tree"
  | "ring"
  | "halving"
  | "pairwise"
  | "hierarchical"
  | "message";

export interface Member {
  readonly rank: number;
  readonly size: number;
  /** Whether the memory of peers of this machine can be read and written in place. */
  readonly shared: boolean;
  /** The ranks by machine. Unless told: all on one, if memory is shared, else each alone. */
  readonly machines?: readonly (readonly number[])[];
}

/**
 * Every schedule that carries out `collective` for one rank. `canonical`: only those that combine all contributions
 * at once, so that the bits do not depend on the algorithm.
 */
export function schedulesFor(
  collective: Collective,
  member: Member,
  canonical = false,
): Schedule[] {
  const { rank, size, shared } = member;
  if (size === 1 && collective.kind !== "allToAll") {
    return [{ algorithm: shared ? "shared" : "direct", steps: [], scratch: 0 }];
  }
  const layout = { rank, shared, machines: machinesOf(member) };
  const { length: machines } = layout.machines;
  const inPlace = (make: () => Schedule) => (shared && machines === 1 ? [make()] : []);
  const overMachines = (make: () => Schedule) => (machines > 1 && machines < size ? [make()] : []);
  switch (collective.kind) {
    case "allReduce": {
      const { count } = collective;
      const fixed = [
        // Two ranks gain nothing by it: their barriers cost less than the copy.
        ...(size > 2 ? inPlace(() => stagedAllReduce(rank, size, count)) : []),
        ...inPlace(() => sharedAllReduce(rank, size, count)),
        directAllReduce(rank, size, count),
        scatterAllReduce(rank, size, count),
      ];
      if (canonical || collective.combination !== undefined) return fixed;
      return [
        ...fixed,
        treeAllReduce(rank, size, count),
        ringAllReduce(rank, size, count),
        halvingAllReduce(rank, size, count),
        ...overMachines(() => hierarchicalAllReduce(layout, count)),
      ];
    }
    case "reduceScatter": {
      const parts = partsFor(collective, size);
      const fixed = [
        ...inPlace(() => sharedReduceScatter(rank, parts)),
        directReduceScatter(rank, parts),
      ];
      if (canonical || collective.combination !== undefined) return fixed;
      return [
        ...fixed,
        ringReduceScatter(rank, parts),
        ...overMachines(() => hierarchicalReduceScatter(layout, parts)),
      ];
    }
    case "allGather": {
      const parts = partsFor(collective, size);
      return [
        ...inPlace(() => sharedAllGather(rank, parts)),
        directAllGather(rank, parts),
        ringAllGather(rank, parts),
        ...overMachines(() => hierarchicalAllGather(layout, parts)),
      ];
    }
    case "broadcast": {
      const { count, root } = collective;
      return [
        ...inPlace(() => sharedBroadcast(rank, count, root)),
        directBroadcast(rank, size, count, root),
        treeBroadcast(rank, size, count, root),
        ...overMachines(() => hierarchicalBroadcast(layout, count, root)),
      ];
    }
    case "allToAll": {
      const given = partsOf(checkCounts(collective.sendCounts, size));
      const taken = partsOf(checkCounts(collective.receiveCounts, size));
      return [directAllToAll(rank, { given, taken }), pairwiseAllToAll(rank, { given, taken })];
    }
    case "send":
      return [sendSchedule(collective.to, collective.count)];
    case "receive":
      return [receiveSchedule(collective.from, collective.count)];
  }
}

export function machinesOf({ size, shared, machines }: Member): readonly (readonly number[])[] {
  const everyone = Array.from({ length: size }, (_, rank) => rank);
  return machines ?? (shared ? [everyone] : everyone.map((rank) => [rank]));
}

/** The parts of a reduce-scatter or all-gather: even ones unless told. */
export function partsFor(
  { count, counts }: { readonly count: number; readonly counts?: readonly number[] },
  size: number,
) {
  if (counts === undefined) return evenParts(count, size);
  const total = checkCounts(counts, size).reduce((sum, part) => sum + part, 0);
  if (total === count) return partsOf(counts);
  throw new LockstepError("INVALID_OPTION", `Parts of ${total} elements do not make ${count}.`);
}

/** Elements of the place that a collective works on, and of the one that it writes to. */
export function extentOf(collective: Collective): { data: number; into: number } {
  if (collective.kind !== "allToAll") return { data: collective.count, into: 0 };
  const total = (counts: readonly number[]) => counts.reduce((sum, part) => sum + part, 0);
  return { data: total(collective.sendCounts), into: total(collective.receiveCounts) };
}

function checkCounts(counts: readonly number[], size: number): readonly number[] {
  const valid = counts.every((count) => Number.isSafeInteger(count) && count >= 0);
  if (counts.length === size && valid) return counts;
  throw new LockstepError(
    "INVALID_OPTION",
    `A group of ${size} needs ${size} counts from 0, got [${counts.join(", ")}].`,
  );
}
