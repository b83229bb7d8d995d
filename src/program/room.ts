/**
 * Room for some tensors of a flat vector in another buffer, where they lie close together: the
 * parameters of a unit, or the gradients of a bucket.
 */
import { bytesPerElement } from "../tensor/index.ts";
import { ALIGNMENT, type Layout } from "./layout.ts";
import { type Owned, type Ownership, ownedSpans } from "./ownership.ts";
import type { TensorRef } from "./program.ts";
import { entrySpan, type Span, spanOf } from "./spans.ts";

/** The most tiles that one small run copies or sums. */
const BLOCK_TILES = 16;

/** Elements that lie one after the other, owner after owner, both in the vector and in the room. */
export interface OwnerRun extends Span {
  /** The number of elements of each owner, by its place. */
  readonly counts: readonly number[];
}

interface Placed extends Span {
  /** Where its first byte lies in the room. */
  readonly byteOffset: number;
}

export class Room {
  readonly byteLength: number;
  readonly #layout: Layout;
  readonly #placed: readonly Placed[];

  /** @param names the tensors; neighbours in the vector stay neighbours */
  constructor(layout: Layout, names: readonly string[]) {
    this.#layout = layout;
    const wanted = new Set(names);
    const placed: Placed[] = [];
    let bytes = 0;
    for (const group of layout.groups) {
      const width = bytesPerElement(group.dtype);
      for (const entry of group.entries) {
        if (!wanted.has(entry.name)) continue;
        // The padding behind a tensor is left out: in a room that others use too, it is not zero.
        const { start, end } = entrySpan(group, entry);
        const last = placed.at(-1);
        if (last?.group === group && last.end === start) {
          placed[placed.length - 1] = { ...last, end };
        } else placed.push({ group, start, end, byteOffset: bytes });
        bytes += Math.ceil((end - start) / ALIGNMENT) * ALIGNMENT * width;
      }
    }
    this.#placed = placed;
    this.byteLength = bytes;
  }

  /** A tensor in the room; undefined if it is not among the room's tensors. */
  ref(name: string, buffer: string): TensorRef | undefined {
    const span = spanOf(this.#layout, name);
    const place = span && this.#find(span, buffer);
    const type = this.#layout.entries.get(name)?.type;
    return place && type && { ...place, type };
  }

  /** The place of a span in the room. */
  placeOf(span: Span, buffer: string): TensorRef {
    return this.#find(span, buffer) as TensorRef;
  }

  /** Cuts at changes of the owner, and into blocks of whole tiles or of a part of one tile. */
  blocks(ownership: Ownership): Owned[] {
    return this.#placed.flatMap((placed) =>
      ownedSpans(ownership, placed).flatMap(({ owner, span }) =>
        roomBlocks(span).map((block) => ({ owner, span: block })),
      ),
    );
  }

  /** Cuts where owners no longer ascend: into what collectives of all owners move at once. */
  runs(ownership: Ownership): OwnerRun[] {
    return this.#placed.flatMap((placed) => {
      const runs: (Span & { end: number; counts: number[] })[] = [];
      let before = Number.POSITIVE_INFINITY;
      for (const { owner, span } of ownedSpans(ownership, placed)) {
        if (owner <= before) runs.push({ ...span, counts: ownership.ranks.map(() => 0) });
        const open = runs.at(-1) as (typeof runs)[number];
        open.end = span.end;
        open.counts[owner] = span.end - span.start;
        before = owner;
      }
      return runs;
    });
  }

  #find({ group, start, end }: Span, buffer: string): TensorRef | undefined {
    const at = this.#placed.find(
      (placed) => placed.group === group && placed.start <= start && end <= placed.end,
    );
    if (at === undefined) return undefined;
    const byteOffset = at.byteOffset + (start - at.start) * bytesPerElement(group.dtype);
    return { buffer, byteOffset, type: { dtype: group.dtype, shape: [end - start] } };
  }
}

/** Cuts a span into blocks of whole tiles or of a part of one tile. */
export function roomBlocks({ group, start, end }: Span): Span[] {
  const { tile } = group;
  const blocks: Span[] = [];
  for (let at = start; at < end; ) {
    const tiles = at % tile === 0 ? Math.min(BLOCK_TILES, Math.floor((end - at) / tile)) : 0;
    const partEnd = Math.min(end, (Math.floor(at / tile) + 1) * tile);
    const next = tiles > 0 ? at + tiles * tile : partEnd;
    blocks.push({ group, start: at, end: next });
    at = next;
  }
  return blocks;
}
