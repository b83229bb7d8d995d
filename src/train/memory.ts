/** Whether a run has room: asked before anything is allocated, so that a sentence comes in the place of a killed process. */
import { totalmem } from "node:os";
import { LockstepError } from "../errors.ts";
import { type Program, residentMemory } from "../program/index.ts";

/** Kinds that are held from the first step to the last, whatever the batch is. */
const KEPT = ["parameters", "gradients", "optimizer slots"] as const;

/**
 * What this process may have: the limit of its control group (a container's), or all memory of the machine.
 * Limits of addresses (`ulimit -v`) show when memory is asked for.
 */
export function memoryLimit(): number {
  // 0 or undefined where nothing constrains it, and more than the machine has where a limit is "none".
  const constrained = process.constrainedMemory?.() ?? 0;
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** @throws OUT_OF_MEMORY where parameters, gradients and slots alone are more than this process may have */
export function checkMemory(program: Program, workers: number, limit = memoryLimit()): void {
  const resident = residentMemory(program);
  const kept = KEPT.map((kind) => [kind, resident.get(kind) ?? 0] as const);
  const needed = kept.reduce((sum, [, bytes]) => sum + bytes, 0);
  if (needed <= limit) return;
  const parts = kept.map(([kind, bytes]) => `${kind} ${megabytes(bytes)}`).join(", ");
  const who = workers === 1 ? "One process alone" : `Each of ${workers} workers`;
  throw new LockstepError(
    "OUT_OF_MEMORY",
    `${who} would need at least ${megabytes(needed)} of memory for this run (${parts}), and may have ${megabytes(limit)}.`,
    {
      hint: `Let workers share them: ${workers === 1 ? "--workers 4" : "more --workers"} with --zero 3 (zero: 3 in the run). Or take a smaller model, or allow more memory.`,
      fields: { needed, limit },
    },
  );
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;
}
