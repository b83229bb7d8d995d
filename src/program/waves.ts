/**
 * Waves: micro-batches that run at the same time, neighbours in the order of the step. What a wave
 * has made is summed before the next begins. Additions have the order of the one tree over all
 * micro-batches.
 */
import { gradientBuffer } from "./buffers.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import { leavesOf, treeRun, treeStage } from "./runs.ts";
import type { Combination, Range } from "./shares.ts";
import { blocksOf, type Span, spanRef, tilesOf } from "./spans.ts";

/** A sum that is kept: into which accumulator it goes, and of what it is made. */
export interface Kept {
  readonly accumulator: number;
  /** Leaves: accumulator `a` is `a`; the wave's micro-batch `m` is `ofMicroBatch(m)`. */
  readonly combination: Combination;
}

export interface Wave extends Range {
  /** The accumulator that each micro-batch writes; empty if they write to other places. */
  readonly leaves: readonly number[];
  /** What is summed after it: no sum reads an accumulator that another one writes. */
  readonly sums: readonly Kept[];
}

export interface Waves {
  readonly waves: readonly Wave[];
  /** The number of accumulators. After the last wave the sum of range `r` is in accumulator `r`. */
  readonly accumulators: number;
}

export interface WaveOptions {
  /** Micro-batches that run at the same time; the last wave may have fewer. */
  readonly perWave: number;
  /** Whether micro-batches write what they make into accumulators. */
  readonly isInPlace: boolean;
}

/** The leaf of a combination for a wave's micro-batch, counted from the wave's first. */
function ofMicroBatch(index: number): number {
  return -1 - index;
}

/** A node of the tree of a range. */
interface Open {
  readonly range: number;
  readonly level: number;
  readonly combination: Combination;
  /** Where it lies already; undefined for what has yet to be summed. */
  readonly accumulator: number | undefined;
}

/**
 * Sums each range by itself, as the tree over all micro-batches sums a node: node j of level k is
 * the sum of micro-batches [j·2ᵏ, (j+1)·2ᵏ) of a range, so the order of additions depends on the
 * length of the range alone. In place, a range of n micro-batches takes about log₂(n) + `perWave`
 * accumulators.
 * @param ranges micro-batches that follow each other
 */
export function planWaves(ranges: readonly Range[], { perWave, isInPlace }: WaveOptions): Waves {
  const waves: Wave[] = [];
  let open: Open[] = [];
  const start = ranges[0]?.first ?? 0;
  const ends = ranges.map(({ first, count }) => first + count);
  const waveOf = (microBatch: number) => Math.floor((microBatch - start) / perWave);
  const used = new Set<number>();
  let accumulators = 0;
  /** The range's own accumulator, or one in which no range begins before this one has ended. */
  const take = (range: number): number => {
    const last = waveOf((ends[range] as number) - 1);
    const isWanted = (at: number) => waveOf(ranges[at]?.first ?? Number.POSITIVE_INFINITY) <= last;
    let free = used.has(range) ? 0 : range;
    while (used.has(free) || (free !== range && isWanted(free))) free += 1;
    used.add(free);
    accumulators = Math.max(accumulators, free + 1);
    return free;
  };
  const end = ends.at(-1) ?? start;
  for (let first = start; first < end; first += perWave) {
    const count = Math.min(perWave, end - first);
    const leaves: number[] = [];
    for (let index = 0; index < count; index++) {
      const range = ends.findIndex((rangeEnd) => first + index < rangeEnd);
      const accumulator = isInPlace ? take(range) : undefined;
      if (accumulator !== undefined) leaves.push(accumulator);
      const combination = accumulator ?? ofMicroBatch(index);
      open.push({ range, level: 0, combination, accumulator });
      // Neighbours of one level are halves of a node of the tree.
      while (isOfOneRange(open) && open.at(-1)?.level === open.at(-2)?.level) merge(open);
      if (first + index + 1 === ends[range]) while (isOfOneRange(open)) merge(open);
    }
    const sums: Kept[] = [];
    open = open.map((node): Open => {
      if (node.accumulator !== undefined) return node;
      const own = accumulatorsIn(node.combination);
      const accumulator = own.length > 0 ? Math.min(...own) : take(node.range);
      sums.push({ accumulator, combination: node.combination });
      return { ...node, combination: accumulator, accumulator };
    });
    used.clear();
    for (const { accumulator } of open) used.add(accumulator as number);
    waves.push({ first, count, leaves, sums });
  }
  return { waves, accumulators };
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

function accumulatorsIn(combination: Combination): number[] {
  if (typeof combination !== "number") return combination.flatMap(accumulatorsIn);
  return combination >= 0 ? [combination] : [];
}

/** The places of what a wave sums, in some tiles. */
export interface WavePlaces {
  accumulator(index: number, tile: number): TensorRef;
  /** What a micro-batch has made, counted from the wave's first. Not needed in place. */
  microBatch?(index: number, tile: number): TensorRef;
}

/** The sums of a wave in `tiles` tiles. */
export function waveRuns(
  program: ProgramBuilder,
  { sums }: Wave,
  tiles: number,
  { accumulator, microBatch = accumulator }: WavePlaces,
): Run[] {
  return sums.map(({ accumulator: to, combination }) => {
    const totals = Array.from({ length: tiles }, (_, tile) => accumulator(to, tile));
    return treeRun(program, combination, totals, (leaf, tile) =>
      leaf < 0 ? microBatch(ofMicroBatch(leaf), tile) : accumulator(leaf, tile),
    );
  });
}

/** The sums of a wave that lie in buffers of gradients, in these spans. */
export function waveStage(program: ProgramBuilder, wave: Wave, spans: readonly Span[]): RunStage {
  // Tile after tile, what is between two additions stays in the cache. A single addition sweeps over
  // a block at once, which is faster.
  const isSingle = wave.sums.every(({ combination }) => leavesOf(combination).length === 2);
  const runs = spans.flatMap(blocksOf).flatMap((block) => {
    const tiles = isSingle ? [block] : tilesOf(block);
    return waveRuns(program, wave, tiles.length, {
      accumulator: (index, tile) => spanRef(tiles[tile] as Span, gradientBuffer(index)),
    });
  });
  return treeStage("sums of micro-batches", runs);
}
