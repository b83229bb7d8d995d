/**
 * Who computes which micro-batches of a step, and how their gradients become one sum. Every rank has a range of
 * micro-batches; in it lie nodes of the one binary tree over all of them. What a rank computes of the tree alone is a
 * contribution; the rest of the tree is computed from contributions. So the sum has the same bits for any ranges.
 */
import { assert } from "../errors.ts";

/** Micro-batches [first, first + count). */
export interface Range {
  readonly first: number;
  readonly count: number;
}

/** A node of the tree that one rank computes by itself. */
export interface Contribution extends Range {
  readonly rank: number;
  /** Counts the contributions of one rank. */
  readonly slot: number;
}

/** A leaf is the index of a contribution; a pair is the sum of two parts. */
export type Combination = number | readonly [Combination, Combination];

export interface Shares {
  /** By rank; together they are all micro-batches, in order. */
  readonly ranges: readonly Range[];
  readonly contributions: readonly Contribution[];
  readonly combination: Combination;
  /** The most contributions that a rank has. */
  readonly slots: number;
}

/** Ranges that differ by one at most; the longer ones first. */
export function evenRanges(microBatches: number, ranks: number): Range[] {
  assert(ranks >= 1 && ranks <= microBatches, "every rank has a micro-batch");
  const ranges: Range[] = [];
  let first = 0;
  for (let rank = 0; rank < ranks; rank++) {
    const count = Math.ceil((microBatches - first) / (ranks - rank));
    ranges.push({ first, count });
    first += count;
  }
  return ranges;
}

export function planShares(ranges: readonly Range[]): Shares {
  const contributions: Contribution[] = [];
  const used = ranges.map(() => 0);
  const visit = (first: number, count: number): Combination => {
    const rank = ranges.findIndex(
      (range) => range.first <= first && first + count <= range.first + range.count,
    );
    if (rank >= 0) {
      const slot = used[rank] as number;
      used[rank] = slot + 1;
      return contributions.push({ rank, slot, first, count }) - 1;
    }
    const half = 2 ** (Math.ceil(Math.log2(count)) - 1);
    return [visit(first, half), visit(first + half, count - half)];
  };
  const total = ranges.reduce((sum, { first, count }) => {
    assert(first === sum && count >= 1, "ranges follow each other and none is empty");
    return sum + count;
  }, 0);
  const combination = visit(0, total);
  return { ranges, contributions, combination, slots: Math.max(...used) };
}

/** The parts [start, end) into which `count` things are cut for `ranks`, as even as can be. */
export function evenCuts(count: number, ranks: number): { start: number; end: number }[] {
  return Array.from({ length: ranks }, (_, rank) => ({
    start: Math.floor((count * rank) / ranks),
    end: Math.floor((count * (rank + 1)) / ranks),
  }));
}
