/** Pieces of flat vectors: ranges of tiles, whole groups or what becomes ready together. Places only, no memory. */
import { byteLength, bytesPerElement } from "../tensor/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import { evenCuts } from "./shares.ts";

/** Tiles [start, end) of a group. */
export interface Piece {
  readonly group: LayoutGroup;
  readonly start: number;
  readonly end: number;
}

/** Every group whole. */
export function wholePieces(layout: Layout): Piece[] {
  return layout.groups.map((group) => ({ group, start: 0, end: group.length / layout.tile }));
}

/** The piece cut into `parts`, as even as can be; some are empty where there are more parts than tiles. */
export function cutPiece({ group, start, end }: Piece, parts: number): Piece[] {
  return evenCuts(end - start, parts).map((cut) => ({
    group,
    start: start + cut.start,
    end: start + cut.end,
  }));
}

export function elementsOf(layout: Layout, { start, end }: Piece): number {
  return (end - start) * layout.tile;
}

export function bytesOf(layout: Layout, piece: Piece): number {
  return elementsOf(layout, piece) * bytesPerElement(piece.group.dtype);
}

/** Where a piece begins in a buffer that is laid out by `layout`. */
export function offsetOf(layout: Layout, { group, start }: Piece): number {
  return group.byteOffset + start * layout.tile * bytesPerElement(group.dtype);
}

/**
 * Cuts a layout by when its tensors are ready: list b has the tiles whose last tensor is in bucket b.
 * @param buckets names of tensors, in the order in which they become ready; what is in none of them is there before
 */
export function bucketPieces(layout: Layout, buckets: readonly (readonly string[])[]): Piece[][] {
  const bucketOf = new Map(buckets.flatMap((names, at) => names.map((name) => [name, at])));
  const pieces = buckets.map((): Piece[] => []);
  for (const group of layout.groups) {
    const tileBytes = layout.tile * bytesPerElement(group.dtype);
    const ready = new Array<number>(group.length / layout.tile).fill(0);
    for (const { name, byteOffset, type } of group.entries) {
      const from = byteOffset - group.byteOffset;
      const last = Math.floor((from + Math.max(1, byteLength(type)) - 1) / tileBytes);
      for (let tile = Math.floor(from / tileBytes); tile <= last; tile++) {
        ready[tile] = Math.max(ready[tile] ?? 0, bucketOf.get(name) ?? 0);
      }
    }
    for (let start = 0; start < ready.length; ) {
      let end = start + 1;
      while (end < ready.length && ready[end] === ready[start]) end += 1;
      pieces[ready[start] as number]?.push({ group, start, end });
      start = end;
    }
  }
  return pieces;
}
