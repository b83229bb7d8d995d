/** The refusal of a run that has no room in memory. */
import { LockstepError } from "../errors.ts";

/** The error of a run that has no room. @param parts what takes how much */
export function outOfMemory({
  workers,
  needed,
  parts,
  memory,
  wholeRule,
  isOffloaded = false,
}: {
  readonly workers: number;
  readonly needed: number;
  readonly parts: string;
  readonly memory: number;
  /** The optimizer's rule that needs whole parameters, if there is one. */
  readonly wholeRule?: string | undefined;
  /** Whether what is needed only for updates lies on disk already. Default: false. */
  readonly isOffloaded?: boolean | undefined;
}): LockstepError {
  const away = isOffloaded
    ? ""
    : ", or keep the optimizer's state on disk: --offload disk (slower)";
  const share =
    wholeRule === undefined
      ? `Share this memory among workers: ${workers === 1 ? "--workers 4" : "more --workers"} with --zero 3 (zero: 3 in the run)${away}.`
      : `The rule "${wholeRule}" needs whole parameters on every worker, so workers cannot share parameters and gradients. Use another optimizer${away}.`;
  const who = workers === 1 ? "One process alone" : `Each of ${workers} workers`;
  return new LockstepError(
    "OUT_OF_MEMORY",
    `${who} would need at least ${megabytes(needed)} of memory for this run (${parts}), but may use only ${megabytes(memory)}.`,
    {
      hint: `${share} Or use a smaller model or smaller micro-batches, or allow more memory.`,
      fields: { needed, limit: memory },
    },
  );
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;
}
