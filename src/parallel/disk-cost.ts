/** What it costs to keep on a disk what a step needs only for its update. */
import type { StepFacts } from "../plan/index.ts";

/** What a rank has of the disk of its node. */
export interface Disk {
  /** Bytes that are free for it. */
  readonly room: number;
  /** What it reads or writes in a second while the other ranks of its node do the same. */
  readonly bytesPerSecond: number;
}

/**
 * The bytes that a node's disk reads or writes in a second if it was not measured: those of a SATA
 * SSD.
 */
export const DISK_SPEED = 5e8;

interface Sharded {
  readonly shard: number;
  readonly zero: 0 | 1 | 2 | 3;
}

/** What a rank keeps on disk of a step that is offloaded, in bytes. */
export interface Kept {
  readonly parameters: number;
  readonly slots: number;
}

/** @param copies the number of ranks that hold each part */
export function keptOnDisk({ zero, shard }: Sharded, facts: StepFacts, copies: number): Kept {
  const { parameters, slots, wholeSlots } = facts;
  return {
    parameters: zero === 3 && shard > 1 ? (copies * parameters) / shard : 0,
    slots: slots * (zero > 0 ? copies / shard : 1) + wholeSlots,
  };
}

/**
 * The time that a disk takes in a step, if memory has no room for anything that lies there: the
 * update reads and writes everything, and each wave of micro-batches reads parameters forward and
 * backward.
 */
export function diskSeconds(
  { parameters, slots }: Kept,
  waves: number,
  { bytesPerSecond }: Disk,
): number {
  return (2 * (slots + parameters) + 2 * waves * parameters) / bytesPerSecond;
}
