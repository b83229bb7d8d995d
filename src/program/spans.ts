/** Ranges of elements of a flat vector, with room for them elsewhere: the tensors of a unit or a bucket, brought together. */
import { bytesPerElement, elementCount } from "../tensor/index.ts";
import { ALIGNMENT, type Layout, type LayoutEntry, type LayoutGroup } from "./layout.ts";
import type { Ownership } from "./ownership.ts";
import type { TensorRef } from "./program.ts";

/** Tiles that one small run copies or sums. */
export const BLOCK_TILES = 16;

/** Elements [start, end) of a group. */
export interface Span {
  readonly group: LayoutGroup;
  readonly start: number;
  readonly end: number;
}

/** Elements that lie one after the other in both rooms, owner after owner. */
export interface OwnerRun extends Span {
  /** Elements of each owner, by its place. */
  readonly counts: readonly number[];
}

interface Placed extends Span {
  /** Of its first byte, in the other room. */
  readonly byteOffset: number;
}

/** The tensors of these names, neighbours together. */
export class Spans {
  readonly byteLength: number;
  readonly #layout: Layout;
  readonly #placed: readonly Placed[];

  constructor(layout: Layout, names: readonly string[]) {
    this.#layout = layout;
    const wanted = new Set(names);
    const placed: Placed[] = [];
    let bytes = 0;
    for (const group of layout.groups) {
      const width = bytesPerElement(group.dtype);
      for (const entry of group.entries) {
        if (!wanted.has(entry.name)) continue;
        const start = (entry.byteOffset - group.byteOffset) / width;
        // Without the padding behind it: in a room that others use too, that is not zero.
        const end = start + elementCount(entry.type.shape);
        const last = placed.at(-1);
        if (last?.group === group && last.end === start)
          placed[placed.length - 1] = { ...last, end };
        else placed.push({ group, start, end, byteOffset: bytes });
        bytes += Math.ceil((end - start) / ALIGNMENT) * ALIGNMENT * width;
      }
    }
    this.#placed = placed;
    this.byteLength = bytes;
  }

  /** A tensor in the other room; undefined where it is not among them. */
  ref(name: string, buffer: string): TensorRef | undefined {
    const entry = this.#layout.entries.get(name);
    if (entry === undefined) return undefined;
    const at = this.#placed.find(
      ({ group, start, end }) =>
        group.entries.includes(entry) &&
        startOf(group, entry) >= start &&
        startOf(group, entry) < end,
    );
    if (at === undefined) return undefined;
    const within = (startOf(at.group, entry) - at.start) * bytesPerElement(at.group.dtype);
    return { buffer, byteOffset: at.byteOffset + within, type: entry.type };
  }

  /** Cut where owners change, and into blocks of at most `tiles` tiles. */
  blocks(ownership: Ownership, tiles: number): { readonly owner: number; readonly span: Span }[] {
    const { tile } = this.#layout;
    return this.#placed.flatMap(({ group, start, end }) => {
      const blocks: { owner: number; span: Span }[] = [];
      for (let at = start; at < end; ) {
        const owner = ownerOf(ownership, group, Math.floor(at / tile));
        let next = at;
        while (next < end && ownerOf(ownership, group, Math.floor(next / tile)) === owner) {
          const isWhole = next % tile === 0 && next + tile <= end;
          // Whole tiles go together; parts of a tile by themselves.
          if (!isWhole && next > at) break;
          next = Math.min(end, (Math.floor(next / tile) + 1) * tile);
          if (!isWhole || next - at >= tiles * tile) break;
        }
        blocks.push({ owner, span: { group, start: at, end: next } });
        at = next;
      }
      return blocks;
    });
  }

  /** Cut where owners no longer ascend: what collectives of all owners move at once. */
  runs(ownership: Ownership): OwnerRun[] {
    return this.#placed.flatMap((placed) => {
      const runs: { group: LayoutGroup; start: number; end: number; counts: number[] }[] = [];
      let before = Number.POSITIVE_INFINITY;
      for (const { owner, start, end } of this.#ofOwners(placed, ownership)) {
        if (owner <= before) {
          const counts = ownership.ranks.map(() => 0);
          runs.push({ group: placed.group, start, end, counts });
        }
        const open = runs.at(-1) as (typeof runs)[number];
        open.end = end;
        open.counts[owner] = end - start;
        before = owner;
      }
      return runs;
    });
  }

  #ofOwners(
    { group, start, end }: Span,
    ownership: Ownership,
  ): { readonly owner: number; readonly start: number; readonly end: number }[] {
    const { tile } = this.#layout;
    const parts: { owner: number; start: number; end: number }[] = [];
    for (let at = start; at < end; ) {
      const owner = ownerOf(ownership, group, Math.floor(at / tile));
      let next = at;
      while (next < end && ownerOf(ownership, group, Math.floor(next / tile)) === owner) {
        next = Math.min(end, (Math.floor(next / tile) + 1) * tile);
      }
      parts.push({ owner, start: at, end: next });
      at = next;
    }
    return parts;
  }

  /** A span where it lies in the other room. */
  placeOf({ group, start, end }: Span, buffer: string): TensorRef {
    const at = this.#placed.find(
      (placed) => placed.group === group && placed.start <= start && end <= placed.end,
    ) as Placed;
    const byteOffset = at.byteOffset + (start - at.start) * bytesPerElement(group.dtype);
    return { buffer, byteOffset, type: { dtype: group.dtype, shape: [end - start] } };
  }
}

/** A span where it lies in a buffer with the whole layout. */
export function spanRef({ group, start, end }: Span, buffer: string): TensorRef {
  const byteOffset = group.byteOffset + start * bytesPerElement(group.dtype);
  return { buffer, byteOffset, type: { dtype: group.dtype, shape: [end - start] } };
}

function startOf(group: LayoutGroup, entry: LayoutEntry): number {
  return (entry.byteOffset - group.byteOffset) / bytesPerElement(group.dtype);
}

/** By the cuts of an ownership and the place of a group: the owner of each tile. */
const owners = new WeakMap<Ownership["cuts"], Map<number, readonly number[]>>();

/** The rank (by its place) that looks after a tile of a group. */
export function ownerOf({ cuts }: Ownership, group: LayoutGroup, tile: number): number {
  const known = owners.get(cuts) ?? new Map<number, readonly number[]>();
  owners.set(cuts, known);
  const found = known.get(group.byteOffset) ?? ownersIn(cuts, group);
  known.set(group.byteOffset, found);
  return found[tile] ?? 0;
}

function ownersIn(cuts: Ownership["cuts"], group: LayoutGroup): readonly number[] {
  const found: number[] = [];
  for (const cut of cuts) {
    if (cut[0]?.group.byteOffset !== group.byteOffset) continue;
    for (const [place, { start, end }] of cut.entries()) {
      for (let tile = start; tile < end; tile++) found[tile] = place;
    }
  }
  return found;
}
