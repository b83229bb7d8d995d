/**
 * Checks that a run fits into memory before anything is allocated, so that the user reads a
 * sentence instead of losing the process.
 */
import { type StatsFs, statfsSync } from "node:fs";
import { totalmem } from "node:os";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { onDisk, type Program, residentMemory, totalOf } from "../program/index.ts";

/** The kinds of memory that are held from the first step to the last, for any batch size. */
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

/**
 * @throws OUT_OF_MEMORY when parameters, gradients and slots alone exceed what this process may use
 */
export function checkMemory(program: Program, workers: number, limit = memoryLimit()): void {
  const resident = residentMemory(program);
  const kept = KEPT.map((kind) => [kind, resident.get(kind) ?? 0] as const);
  const needed = kept.reduce((sum, [, bytes]) => sum + bytes, 0);
  if (needed <= limit) return;
  const parts = kept.map(([kind, bytes]) => `${kind} ${megabytes(bytes)}`).join(", ");
  const keepAway = totalOf(onDisk(program)) > 0 ? "" : ", or --offload disk (slower)";
  const who = workers === 1 ? "One process alone" : `Each of ${workers} workers`;
  throw new LockstepError(
    "OUT_OF_MEMORY",
    `${who} would need at least ${megabytes(needed)} of memory for this run (${parts}), but may use only ${megabytes(limit)}.`,
    {
      hint: `Share this memory among workers: ${workers === 1 ? "--workers 4" : "more --workers"} with --zero 3 (zero: 3 in the run)${keepAway}. Or use a smaller model, or allow more memory.`,
      fields: { needed, limit },
    },
  );
}

/** File systems that keep their files in memory (tmpfs, ramfs). */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/**
 * Asked as soon as it is known what lies on disk. Files take their space for good when they are made.
 * @throws INVALID_OPTION where the folder's disk is memory, DISK_FULL, IO_FAILED
 */
export function checkDisk(program: Program, folder: string | undefined): void {
  const needed = totalOf(onDisk(program));
  if (needed === 0) return;
  if (folder === undefined) {
    throw new LockstepError("INVALID_OPTION", "offload needs a folder of a disk: offloadFolder.");
  }
  const { type, bavail, bsize } = statfs(folder);
  if (process.platform === "linux" && IN_MEMORY.has(type)) {
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
    `offload: each worker keeps ${megabytes(needed)} on the disk of "${folder}", which has ${megabytes(free)} left.`,
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

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;
}
