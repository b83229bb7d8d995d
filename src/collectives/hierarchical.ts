/**
 * All-reduce over machines of several ranks each: first within each machine, then between them, then back. Each byte
 * crosses the network once for a machine, not once for a rank.
 */
import { LockstepError } from "../errors.ts";
import { bytesPerElement } from "../tensor/index.ts";
import type { Group, GroupBuffer, Prepared } from "./group.ts";
import type { Collective } from "./request.ts";
import { evenParts } from "./schedule.ts";

export interface Hierarchy {
  /** The ranks of this machine. */
  readonly local: Group;
  /**
   * One rank of each machine: where all machines have equally many, a group for each local rank; else one group of
   * the local ranks 0, and none for the others.
   */
  readonly cross: Group | undefined;
  /** The ranks of all machines. */
  readonly total: number;
}

/** The same memory in both groups. */
export interface HierarchicalPlace {
  readonly local: GroupBuffer;
  readonly cross: GroupBuffer | undefined;
  readonly byteOffset?: number;
}

export type HierarchicalRequest = Pick<
  Extract<Collective, { kind: "allReduce" }>,
  "count" | "dtype" | "reduction"
>;

/** Throws INVALID_OPTION, and what `Group.prepare` throws. */
export async function prepareHierarchical(
  { local, cross, total }: Hierarchy,
  request: HierarchicalRequest,
  place: HierarchicalPlace,
): Promise<Pick<Prepared, "run" | "close">> {
  const { count, dtype, reduction } = request;
  const isMean = reduction === "mean";
  const everyRankCrosses = cross !== undefined && cross.size * local.size === total;
  if (cross === undefined && local.rank === 0) {
    throw new LockstepError("INVALID_OPTION", "Rank 0 of each machine needs a group of machines.");
  }
  const counts = everyRankCrosses
    ? evenParts(count, local.size).map(({ length }) => length)
    : [count, ...Array.from({ length: local.size - 1 }, () => 0)];
  const { byteOffset = 0 } = place;
  const data = { data: place.local, byteOffset };
  const prepared: Prepared[] = [];
  const inMachine = isMean ? "sum" : reduction;
  prepared.push(
    await local.prepare(
      { kind: "reduceScatter", count, dtype, reduction: inMachine, counts },
      data,
    ),
  );
  const before = counts.slice(0, local.rank).reduce((sum, length) => sum + length, 0);
  if (cross !== undefined && place.cross !== undefined) {
    prepared.push(
      await cross.prepare(
        { kind: "allReduce", count: counts[local.rank] ?? 0, dtype, reduction, divisor: total },
        { data: place.cross, byteOffset: byteOffset + before * bytesPerElement(dtype) },
      ),
    );
  }
  prepared.push(await local.prepare({ kind: "allGather", count, dtype, counts }, data));
  return {
    async run(): Promise<void> {
      for (const { run } of prepared) await run();
    },
    close(): void {
      for (const { close } of prepared) close();
    },
  };
}
