/**
 * The layout of tensors in one flat vector: grouped, aligned, and padded to whole tiles, so that
 * element-wise graphs sweep over a group and see no boundary between tensors. Places only, no
 * memory.
 */
import { assert } from "../errors.ts";
import { bytesPerElement, type DType, elementCount, type TensorType } from "../tensor/index.ts";
import type { TensorRef } from "./program.ts";

/** Every tensor starts at a multiple of this many elements, which are 64 bytes or more. */
export const ALIGNMENT = 64;
const SMALLEST_TILE = 1024;
const LARGEST_TILE = 32768;

export interface LayoutItem {
  readonly name: string;
  readonly type: TensorType;
  /** Items of one key (and one element type) lie together. */
  readonly group: string;
}

export interface LayoutEntry extends LayoutItem {
  /** From the start of the vector. */
  readonly byteOffset: number;
}

export interface LayoutGroup {
  readonly key: string;
  readonly dtype: DType;
  /** The layout's tile, in elements. */
  readonly tile: number;
  /** From the start of the vector. */
  readonly byteOffset: number;
  /** In elements, with padding: a multiple of the tile. Padding is zero and stays so. */
  readonly length: number;
  readonly entries: readonly LayoutEntry[];
}

export interface Layout {
  /** In elements. */
  readonly tile: number;
  readonly groups: readonly LayoutGroup[];
  readonly entries: ReadonlyMap<string, LayoutEntry>;
  readonly byteLength: number;
}

/** Lays out `items` in their order. Groups follow each other in the order of their first items. */
export function planLayout(items: readonly LayoutItem[], tile = tileFor(items)): Layout {
  assert(tile % ALIGNMENT === 0, "a tile is a multiple of the alignment");
  const members = new Map<string, LayoutItem[]>();
  for (const item of items) {
    const key = `${item.group}:${item.type.dtype}`;
    const list = members.get(key);
    if (list === undefined) members.set(key, [item]);
    else list.push(item);
  }
  const groups: LayoutGroup[] = [];
  const entries = new Map<string, LayoutEntry>();
  let byteOffset = 0;
  for (const list of members.values()) {
    const group = layOutGroup(list, tile, byteOffset);
    for (const entry of group.entries) {
      assert(!entries.has(entry.name), `"${entry.name}" is laid out once`);
      entries.set(entry.name, entry);
    }
    groups.push(group);
    byteOffset += group.length * bytesPerElement(group.dtype);
  }
  return { tile, groups, entries, byteLength: byteOffset };
}

/** The place of a tensor of a layout in a buffer; undefined if the layout does not have it. */
export function entryRef(layout: Layout, buffer: string, name: string): TensorRef | undefined {
  const entry = layout.entries.get(name);
  return entry && { buffer, byteOffset: entry.byteOffset, type: entry.type };
}

/** The places of all tensors of a layout in a buffer, by name. */
export function refsOf({ entries }: Layout, buffer: string): Map<string, TensorRef> {
  return new Map(
    [...entries].map(([name, { type, byteOffset }]) => [name, { buffer, byteOffset, type }]),
  );
}

function layOutGroup(items: readonly LayoutItem[], tile: number, byteOffset: number): LayoutGroup {
  const first = items[0];
  assert(first !== undefined, "a group has an item");
  const width = bytesPerElement(first.type.dtype);
  let length = 0;
  const entries = items.map((item) => {
    const entry = { ...item, byteOffset: byteOffset + length * width };
    length += roundUp(elementCount(item.type.shape), ALIGNMENT);
    return entry;
  });
  return {
    key: first.group,
    dtype: first.type.dtype,
    tile,
    byteOffset,
    length: roundUp(length, tile),
    entries,
  };
}

/** Large vectors have tiles that stay in a core's cache; small ones have little padding. */
function tileFor(items: readonly LayoutItem[]): number {
  let elements = 0;
  for (const item of items) elements += elementCount(item.type.shape);
  let tile = SMALLEST_TILE;
  while (tile < LARGEST_TILE && tile * 16 < elements) tile *= 2;
  return tile;
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
