/** Checks that what lies on a disk has room there, before anything is allocated. */
import { type StatsFs, statfsSync } from "node:fs";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { DISK_SPEED, type Disk, textOfBytes } from "../parallel/index.ts";
import { onDisk, type Program, totalOf } from "../program/index.ts";

/** File systems that keep their files in memory (tmpfs, ramfs). */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/**
 * Returns the free bytes of the folder's disk; 0 where nothing can be offloaded to it, because its
 * files lie in memory or the system cannot map them (Windows).
 */
export function diskRoom(folder: string | undefined): number {
  if (folder === undefined || process.platform === "win32") return 0;
  const { type, bavail, bsize } = statfs(folder);
  return isInMemory(type) ? 0 : bavail * bsize;
}

/** The part of a disk that each of `sharers` ranks has; undefined if there is nothing. */
export function diskFor(room: number, sharers: number): Disk | undefined {
  if (room === 0) return undefined;
  return { room: room / sharers, bytesPerSecond: DISK_SPEED / sharers };
}

function isInMemory(type: number): boolean {
  return process.platform === "linux" && IN_MEMORY.has(type);
}

/**
 * Asked as soon as it is known what lies on disk. Files take their space for good when they are
 * made.
 * @throws INVALID_OPTION where the folder's disk is memory, DISK_FULL, IO_FAILED
 */
export function checkDisk(program: Program, folder: string | undefined): void {
  const needed = totalOf(onDisk(program));
  if (needed === 0) return;
  if (folder === undefined) {
    throw new LockstepError("INVALID_OPTION", "offload needs a folder of a disk: offloadFolder.");
  }
  const { type, bavail, bsize } = statfs(folder);
  if (isInMemory(type)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `offload: the folder "${folder}" lies in memory (tmpfs), so nothing would be saved by it.`,
      { hint: "Take a folder of a disk: --out." },
    );
  }
  const free = bavail * bsize;
  if (free >= needed) return;
  throw new LockstepError(
    "DISK_FULL",
    `offload: each worker keeps ${textOfBytes(needed)} on the disk of "${folder}", which has ${textOfBytes(free)} left.`,
    {
      hint: "Make room there, take a folder of another disk (--out), or more workers with --zero 3.",
      fields: { path: folder, needed, free },
    },
  );
}

function statfs(folder: string): StatsFs {
  try {
    return statfsSync(folder);
  } catch (error) {
    throw fileError(error, "write", folder);
  }
}
