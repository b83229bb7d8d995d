/**
 * Sweeps: one small graph run over every block of flat vectors. A block is a few tiles; the last blocks of a
 * group are shorter, so that each length is compiled once.
 */
import { bytesPerElement, type DType } from "../tensor/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import type { RunStage, TensorRef } from "./program.ts";

/** Tiles in a block, longest first: one run is about a millisecond of work, far above the cost of a call. */
const BLOCKS = [16, 4, 1] as const;

export interface Block {
  /** From the start of the group. */
  readonly firstTile: number;
  readonly tiles: number;
}

/** Elements of a layout, padding included. */
export function elementsIn(groups: readonly LayoutGroup[]): number {
  return groups.reduce((sum, { length }) => sum + length, 0);
}

/** Blocks of the tiles [start, end) of a group. */
export function blocksBetween(start: number, end: number): Block[] {
  const blocks: Block[] = [];
  for (const tiles of BLOCKS) {
    let at = blocks.reduce((sum, block) => sum + block.tiles, start);
    for (; at + tiles <= end; at += tiles) blocks.push({ firstTile: at, tiles });
  }
  return blocks;
}

/** A part of a group in a buffer that is laid out by `layout`. */
export function blockRef(
  buffer: string,
  layout: Layout,
  group: LayoutGroup,
  { firstTile, tiles }: Block,
  shape: readonly number[] = [tiles * layout.tile],
): TensorRef {
  const byteOffset = group.byteOffset + firstTile * layout.tile * bytesPerElement(group.dtype);
  return { buffer, byteOffset, type: { dtype: group.dtype, shape } };
}

/** The tiles of a block, each as a place of its own. */
export function tileRefs(
  buffer: string,
  layout: Layout,
  group: LayoutGroup,
  { firstTile, tiles }: Block,
): TensorRef[] {
  return Array.from({ length: tiles }, (_, index) =>
    blockRef(buffer, layout, group, { firstTile: firstTile + index, tiles: 1 }),
  );
}

export function scalarRef(buffer: string, dtype: DType, index: number): TensorRef {
  return { buffer, byteOffset: index * bytesPerElement(dtype), type: { dtype, shape: [] } };
}

/** Work below this stays on the calling thread: handing it to others would cost as much. */
const SMALL_NANOSECONDS = 200_000;

/** How a stage that sweeps over so many elements runs, at `cost` nanoseconds each (measured; see docs/lab.md). */
export function sweepMode(elements: number, cost: number): RunStage["mode"] {
  return elements * cost < SMALL_NANOSECONDS ? "small" : "parallel";
}
