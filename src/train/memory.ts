/**
 * Checks that a run fits into memory before anything is allocated, so that the user reads a
 * sentence instead of losing the process.
 */
import { totalmem } from "node:os";
import { LockstepError } from "../errors.ts";
import { type Program, residentMemory } from "../program/index.ts";

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
  const who = workers === 1 ? "One process alone" : `Each of ${workers} workers`;
  throw new LockstepError(
    "OUT_OF_MEMORY",
    `${who} would need at least ${megabytes(needed)} of memory for this run (${parts}), but may use only ${megabytes(limit)}.`,
    {
      hint: `Share this memory among workers: ${workers === 1 ? "--workers 4" : "more --workers"} with --zero 3 (zero: 3 in the run). Or use a smaller model, or allow more memory.`,
      fields: { needed, limit },
    },
  );
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;
}
