/**
 * Keys of random layers: one for each sample, computed only from the seed and the sample's position
 * in the global order.
 */
import type { HostTensor } from "../engine/index.ts";

/** The positions [start, end) of the global sample order. */
export interface Positions {
  readonly start: number;
  readonly end: number;
}

/**
 * Writes the keys of the samples at these positions. They are the same on every worker and in any
 * split into micro-batches.
 */
export function fillKeys(tensor: HostTensor, seed: number, positions: readonly Positions[]): void {
  const { buffer, byteOffset, length } = tensor.bytes;
  const keys = new Int32Array(buffer, byteOffset, length / 4);
  const base = mix(high(seed) ^ mix(seed | 0));
  let index = 0;
  for (const { start, end } of positions) {
    for (let position = start; position < end; position++) {
      keys[index++] = mix(mix(base ^ (position | 0)) ^ high(position));
    }
  }
}

/** Returns the bits above the lowest 32. */
function high(value: number): number {
  return Math.floor(value / 2 ** 32);
}

/**
 * The finalizer of MurmurHash3 (Appleby, public domain) of a shifted value, so that 0 does not map
 * to 0.
 */
function mix(value: number): number {
  let x = (value + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/**
 * Returns the positions of the samples in these of a step's `of` micro-batches. Adjacent ranges are
 * merged.
 */
export function positionsOf(
  microBatches: readonly number[],
  { start, end }: Positions,
  of = 1,
): Positions[] {
  const size = (end - start) / of;
  const ranges: Positions[] = [];
  for (const microBatch of microBatches) {
    const first = start + microBatch * size;
    const before = ranges.at(-1);
    if (before?.end === first) ranges.splice(-1, 1, { start: before.start, end: first + size });
    else ranges.push({ start: first, end: first + size });
  }
  return ranges;
}
