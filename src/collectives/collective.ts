/**
 * The collectives that a group of ranks can run, and their checks. Pure: no transport and no
 * memory.
 */
import { LockstepError } from "../errors.ts";
import type { DType } from "../tensor/index.ts";

/** A collective without its memory. Counts are in elements. */
export type Collective =
  /**
   * Rank r has part r of the data, of `counts[r]` elements, at its place. Afterwards every rank has
   * all parts.
   */
  | { readonly kind: "allGather"; readonly dtype: DType; readonly counts: readonly number[] }
  /**
   * The data of a rank has `sendCounts[p]` elements for each rank p, one part after the other. The
   * rank receives `receiveCounts[p]` elements from each, one part after the other, in a different
   * place. A rank that receives nothing from itself leaves its own part where it is.
   */
  | {
      readonly kind: "allToAll";
      readonly dtype: DType;
      readonly sendCounts: readonly number[];
      readonly receiveCounts: readonly number[];
    };

/** A range of elements. */
export interface Part {
  readonly start: number;
  readonly length: number;
}

/** Returns parts of the given lengths, one after the other. */
export function partsOf(counts: readonly number[]): Part[] {
  let start = 0;
  return counts.map((length) => {
    const part = { start, length };
    start += length;
    return part;
  });
}

/**
 * Returns the number of elements that a collective needs in its data, and in the place that it
 * writes to.
 */
export function extentOf(collective: Collective): { readonly data: number; readonly into: number } {
  const total = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);
  if (collective.kind === "allGather") return { data: total(collective.counts), into: 0 };
  return { data: total(collective.sendCounts), into: total(collective.receiveCounts) };
}

/** @throws INVALID_OPTION unless there is one count for each rank of the group */
export function checkCollective(collective: Collective, size: number): void {
  if (collective.kind === "allGather") return checkCounts(collective.counts, size);
  checkCounts(collective.sendCounts, size);
  checkCounts(collective.receiveCounts, size);
}

function checkCounts(counts: readonly number[], size: number): void {
  const valid = counts.every((count) => Number.isSafeInteger(count) && count >= 0);
  if (counts.length === size && valid) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `A group of ${size} needs ${size} counts from 0, got [${counts.join(", ")}].`,
  );
}
