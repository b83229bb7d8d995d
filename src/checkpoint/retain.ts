/** Decides which checkpoints are kept. Pure. */

export interface Retention {
  /** How many of the newest are kept. */
  readonly keepLast: number;
  /** Those whose step is a multiple of it are kept for good. Default: none. */
  readonly keepEvery?: number | undefined;
}

/** Returns the steps of the checkpoints that may be removed, oldest first. */
export function outdated(
  steps: readonly number[],
  { keepLast, keepEvery }: Retention,
): readonly number[] {
  const sorted = [...new Set(steps)].sort((a, b) => a - b);
  const old = sorted.slice(0, Math.max(0, sorted.length - keepLast));
  return old.filter((step) => keepEvery === undefined || step === 0 || step % keepEvery !== 0);
}
