/** The order in which one rank computes its micro-batches, and adds them up into its contributions. */
import { sumTree, type TreeSum } from "./gradient.ts";
import type { Contribution } from "./shares.ts";

/** Micro-batches are counted from the first of the rank. */
export interface Accumulation {
  /** The buffer that each micro-batch writes. Contribution `slot` ends in the buffer of that number. */
  readonly leaves: readonly number[];
  readonly sums: readonly TreeSum[];
  /** Micro-batches that run at once, and then their sums. */
  readonly waves: readonly { readonly first: number; readonly last: number }[];
  readonly buffers: number;
}

/** One contribution after the other, `lanes` micro-batches at a time. */
export function planAccumulation(
  contributions: readonly Contribution[],
  lanes: number,
): Accumulation {
  const leaves: number[] = [];
  const sums: TreeSum[] = [];
  const waves: { first: number; last: number }[] = [];
  let buffers = 0;
  for (const { slot, count } of contributions) {
    const offset = leaves.length;
    const width = Math.min(lanes, count);
    const tree = sumTree(count, width);
    leaves.push(...tree.leaves.map((buffer) => buffer + slot));
    for (const { after, from, into } of tree.sums) {
      sums.push({ after: after + offset, from: from + slot, into: into + slot });
    }
    for (let first = offset; first < offset + count; first += width) {
      waves.push({ first, last: Math.min(first + width, offset + count) - 1 });
    }
    buffers = Math.max(buffers, tree.buffers + slot);
  }
  return { leaves, sums, waves, buffers };
}
