/**
 * Checks that a run fits into memory before anything is allocated, so that the user reads a
 * sentence instead of losing the process.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { type Group, tellNumbers } from "../collectives/index.ts";
import type { Topology } from "../mesh/index.ts";
import { type Disk, outOfMemory, textOfBytes } from "../parallel/index.ts";
import { onDisk, type Program, residentMemory, totalOf } from "../program/index.ts";
import { diskFor, diskRoom } from "./disk.ts";
import { canReopen } from "./reopen.ts";

/** What every rank of a run has at least. */
export interface Room {
  /** Bytes that a rank may have; Infinity where it is not known. */
  readonly memory: number;
  /** The most micro-batches that a rank runs at once. */
  readonly lanes: number;
  /** Where state may lie that is needed only for updates. */
  readonly disk?: Disk | undefined;
  /** Whether ranks of a node can map memory of each other again. Default: true. */
  readonly reopens?: boolean;
}

/** Kinds that are held from the first step to the last, whatever the batch is. */
const KEPT = ["parameters", "gradients", "optimizer slots"] as const;

/**
 * Returns the bytes that this process may use: the limit of its control group (a container's), or
 * the memory of the machine. A limit of the address space (`ulimit -v`) shows only when memory is
 * allocated.
 */
export function memoryLimit(): number {
  // constrainedMemory() is 0 or undefined when nothing constrains the process, and more than the
  // machine has when the limit is "none".
  const constrained = process.constrainedMemory?.() ?? 0;
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** What one rank tells all others about where it runs. */
interface Place {
  readonly limit: number;
  readonly machine: number;
  /** A number for the control group, which is equal for processes that share its limit. */
  readonly controlGroup: number;
  readonly lanes: number;
  /** Free bytes of the disk of the run's folder. */
  readonly disk: number;
}

/**
 * What the ranks of a run have, the same on all of them. All ranks call it together. Rejects with
 * the group's error.
 * @param folder a folder of this rank's disk
 */
export async function meetRoom(group: Group, folder?: string): Promise<Room> {
  const { transport, engine } = group;
  const own = [memoryLimit(), totalmem(), controlGroup(), engine.threads, diskRoom(folder)];
  const told = await tellNumbers(transport, own);
  const places = told.map(([limit = 0, machine = 0, group = 0, most = 1, disk = 0]): Place => {
    return { limit, machine, controlGroup: group, lanes: most, disk };
  });
  return { ...roomOf(places, transport.nodes), reopens: await canReopen(group) };
}

/**
 * Ranks of one control group share its limit, and ranks of one node its memory and its disk. Without
 * a disk on every node there is none.
 */
export function roomOf(places: readonly Place[], nodes: Topology["nodes"]): Room {
  const memory = nodes.flatMap((ranks) => {
    const own = ranks.flatMap((rank) => places[rank] ?? []);
    return own.map(({ limit, machine, controlGroup: group }) => {
      const sharers = own.filter((other) => other.controlGroup === group).length;
      return Math.min(limit / sharers, machine / own.length);
    });
  });
  return {
    memory: Math.floor(Math.min(...memory)),
    lanes: Math.max(...places.map(({ lanes }) => lanes)),
    disk: diskFor(
      Math.min(...places.map(({ disk }) => disk)),
      Math.max(...nodes.map(({ length }) => length)),
    ),
  };
}

/** 0 where the system has no control groups. */
function controlGroup(): number {
  const path = "/proc/self/cgroup";
  if (!existsSync(path)) return 0;
  return createHash("sha256").update(readFileSync(path)).digest().readUInt32LE();
}

/**
 * @throws OUT_OF_MEMORY where parameters, gradients and slots alone are more than this process may
 * have
 */
export function checkMemory(program: Program, workers: number, limit = memoryLimit()): void {
  const resident = residentMemory(program);
  const kept = KEPT.map((kind) => [kind, resident.get(kind) ?? 0] as const);
  const needed = kept.reduce((sum, [, bytes]) => sum + bytes, 0);
  if (needed <= limit) return;
  const parts = kept.map(([kind, bytes]) => `${kind} ${textOfBytes(bytes)}`).join(", ");
  const isOffloaded = totalOf(onDisk(program)) > 0;
  throw outOfMemory({ workers, needed, parts, memory: limit, isOffloaded });
}
