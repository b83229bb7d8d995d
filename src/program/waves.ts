/**
 * Waves: all ranks run a few micro-batches each at the same time, neighbours in the order of the
 * step, and what a wave has made is summed before the next begins. Additions have the order of the
 * one tree over all micro-batches.
 */
import type { Combination, Range } from "./shares.ts";

/** A sum that is kept: into which accumulator it goes, and of what it is made. */
export interface Kept {
  readonly accumulator: number;
  /** Leaves: accumulator `a` is `a`; the wave's micro-batch `m` is `ofMicroBatch(m)`. */
  readonly combination: Combination;
}

export interface Wave {
  /** Micro-batches [first, first + count) of the step. */
  readonly first: number;
  readonly count: number;
  /** What is summed after it, into accumulators that no sum of the wave has still to read. */
  readonly sums: readonly Kept[];
}

/** More accumulators than any tree needs. */
const MOST_ACCUMULATORS = 64;

/** The leaf of a combination for a wave's micro-batch, counted from the wave's first. */
export function ofMicroBatch(index: number): number {
  return MOST_ACCUMULATORS + index;
}

/** What a leaf stands for. */
export function leafOf(
  leaf: number,
): { readonly accumulator: number } | { readonly microBatch: number } {
  return leaf < MOST_ACCUMULATORS
    ? { accumulator: leaf }
    : { microBatch: leaf - MOST_ACCUMULATORS };
}

interface Open {
  readonly range: number;
  readonly level: number;
  readonly combination: Combination;
  /** Where it lies already; undefined for what the wave has just made. */
  readonly accumulator: number | undefined;
}

/** Waves, and where the sum of each range lies after the last of them. */
export interface Waves {
  readonly waves: readonly Wave[];
  /** By range: an accumulator. That of the first range is 0. */
  readonly totals: readonly number[];
}

/**
 * Sums each range by itself, as the tree over all micro-batches sums a node.
 * @param ranges micro-batches that follow each other
 * @param perWave micro-batches of all ranks together; the last wave may have fewer
 */
export function planWaves(ranges: readonly Range[], perWave: number): Waves {
  const waves: Wave[] = [];
  let open: Open[] = [];
  const start = ranges[0]?.first ?? 0;
  const end = ranges.reduce((sum, { count }) => sum + count, start);
  const rangeOf = (microBatch: number) =>
    ranges.findIndex((own) => microBatch < own.first + own.count);
  for (let first = start; first < end; first += perWave) {
    const count = Math.min(perWave, end - first);
    for (let index = 0; index < count; index++) {
      const range = rangeOf(first + index);
      open.push({ range, level: 0, combination: ofMicroBatch(index), accumulator: undefined });
      // Neighbours of one level are halves of a node of the tree.
      while (isOfOneRange(open) && open.at(-1)?.level === open.at(-2)?.level) merge(open);
      const isLast = first + index + 1 === end || rangeOf(first + index + 1) !== range;
      if (isLast) while (isOfOneRange(open)) merge(open);
    }
    // What one sum of the wave reads is not what another writes: they may run at once.
    const used = new Set(open.flatMap(({ combination }) => accumulatorsIn(combination)));
    const sums: Kept[] = [];
    open = open.map((node): Open => {
      if (node.accumulator !== undefined) return node;
      const accumulator = place(node.combination, used);
      used.add(accumulator);
      sums.push({ accumulator, combination: node.combination });
      return { ...node, combination: accumulator, accumulator };
    });
    waves.push({ first, count, sums });
  }
  return { waves, totals: open.map(({ accumulator }) => accumulator as number) };
}

/** Whether the last two sums are of one range. */
function isOfOneRange(open: readonly Open[]): boolean {
  return open.length > 1 && open.at(-1)?.range === open.at(-2)?.range;
}

function merge(open: Open[]): void {
  const right = open.pop() as Open;
  const left = open.pop() as Open;
  const combination = [left.combination, right.combination] as const;
  open.push({ ...left, level: left.level + 1, combination, accumulator: undefined });
}

/** The first accumulator that a sum is made of, or else a free one. */
function place(combination: Combination, used: ReadonlySet<number>): number {
  const own = accumulatorsIn(combination);
  if (own.length > 0) return Math.min(...own);
  let free = 0;
  while (used.has(free)) free += 1;
  return free;
}

function accumulatorsIn(combination: Combination): number[] {
  if (typeof combination !== "number") return combination.flatMap(accumulatorsIn);
  return combination < MOST_ACCUMULATORS ? [combination] : [];
}

/** How many accumulators the waves need. */
export function accumulatorsOf(waves: readonly Wave[]): number {
  const all = waves.flatMap(({ sums }) => sums.map(({ accumulator }) => accumulator));
  return Math.max(...all) + 1;
}
