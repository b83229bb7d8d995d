/**
 * Spans of flat vectors: they are cut into even parts, into blocks for small graphs, and into what
 * becomes ready together. Places only, no memory.
 */
import { bytesPerElement, elementCount } from "../tensor/index.ts";
import type { Layout, LayoutEntry, LayoutGroup } from "./layout.ts";
import type { Extent, TensorRef } from "./program.ts";

/** Elements [start, end) of a group. */
export interface Span {
  readonly group: LayoutGroup;
  readonly start: number;
  readonly end: number;
}

/**
 * Tiles in a block, longest first: one run is about a millisecond of work, far above the cost of a
 * call. The last blocks of a span are shorter, so that each length is compiled once.
 */
const BLOCKS = [16, 4, 1] as const;

export function wholeSpan(group: LayoutGroup): Span {
  return { group, start: 0, end: group.length };
}

export function wholeSpans({ groups }: Layout): Span[] {
  return groups.map(wholeSpan);
}

export function lengthOf(spans: readonly Span[]): number {
  return spans.reduce((sum, { start, end }) => sum + end - start, 0);
}

export function tilesIn({ group, start, end }: Span): number {
  return (end - start) / group.tile;
}

/** The span of a tensor of a layout, without the padding behind it; undefined for others. */
export function spanOf({ groups, entries }: Layout, name: string): Span | undefined {
  const entry = entries.get(name);
  const group = groups.find((own) => entry !== undefined && own.entries.includes(entry));
  return group && entry && entrySpan(group, entry);
}

/** The span of an entry of a group. */
export function entrySpan(group: LayoutGroup, { byteOffset, type }: LayoutEntry): Span {
  const start = (byteOffset - group.byteOffset) / bytesPerElement(group.dtype);
  return { group, start, end: start + elementCount(type.shape) };
}

/** Whole tiles, cut into `parts` as even as can be; with more parts than tiles, some are empty. */
export function cutEvenly(span: Span, parts: number): Span[] {
  const { group, start } = span;
  const cut = (at: number) => start + group.tile * Math.floor((tilesIn(span) * at) / parts);
  return Array.from({ length: parts }, (_, at) => ({ group, start: cut(at), end: cut(at + 1) }));
}

/** The blocks of whole tiles that small graphs sweep over. What is less than a tile is one, too. */
export function blocksOf(span: Span): Span[] {
  return blocksOfTiles(span, BLOCKS);
}

/** @param sizes the tiles of blocks, longest first; the last is 1 */
export function blocksOfTiles({ group, start, end }: Span, sizes: readonly number[]): Span[] {
  const blocks: Span[] = [];
  let at = start;
  for (const tiles of sizes) {
    const length = tiles * group.tile;
    for (; at + length <= end; at += length) blocks.push({ group, start: at, end: at + length });
  }
  if (at < end) blocks.push({ group, start: at, end });
  return blocks;
}

/** The tiles of a block, or what is less than one. */
export function tilesOf(block: Span): Span[] {
  return tilesIn(block) < 1 ? [block] : cutEvenly(block, tilesIn(block));
}

/** The bytes of a span in a buffer that has the whole layout. */
export function extentOf({ group, start, end }: Span): Extent {
  const width = bytesPerElement(group.dtype);
  return { byteOffset: group.byteOffset + start * width, byteLength: (end - start) * width };
}

/**
 * Cuts a block into what one addition takes: two tiles, where there are two. A call of an operator
 * costs as much as a few thousand elements, and a sum with its copies still fits a core's cache.
 */
export function additionsOf(block: Span): Span[] {
  return cutEvenly(block, Math.max(1, tilesIn(block) / 2));
}

/** A span as a tensor of a buffer that has the whole layout. */
export function spanRef(span: Span, buffer: string, shape = [lengthOf([span])]): TensorRef {
  const { byteOffset } = extentOf(span);
  return { buffer, byteOffset, type: { dtype: span.group.dtype, shape } };
}

/**
 * Cuts a layout by when its tensors are ready: list b has the tiles whose last tensor is in bucket
 * b.
 * @param buckets the names of tensors, in the order in which they become ready; a tensor that is in
 *   none of them is ready before
 */
export function readySpans(layout: Layout, buckets: readonly (readonly string[])[]): Span[][] {
  const bucketOf = new Map(buckets.flatMap((names, at) => names.map((name) => [name, at])));
  const spans = buckets.map((): Span[] => []);
  for (const group of layout.groups) {
    const { tile } = group;
    const ready = new Array<number>(group.length / tile).fill(0);
    for (const entry of group.entries) {
      const { start, end } = entrySpan(group, entry);
      const last = Math.floor((Math.max(end, start + 1) - 1) / tile);
      for (let at = Math.floor(start / tile); at <= last; at++) {
        ready[at] = Math.max(ready[at] ?? 0, bucketOf.get(entry.name) ?? 0);
      }
    }
    for (let start = 0; start < ready.length; ) {
      let end = start + 1;
      while (end < ready.length && ready[end] === ready[start]) end += 1;
      spans[ready[start] as number]?.push({ group, start: start * tile, end: end * tile });
      start = end;
    }
  }
  return spans;
}
