/** What attention in a ring is made of: blocks of queries, and what hides keys from them. */
import {
  add,
  expand,
  gather,
  greaterOrEqual,
  less,
  mul,
  pad,
  slice,
  where,
} from "../../functional/index.ts";
import type { GraphBuilder, Value } from "../../graph/index.ts";
import { type DType, tensorFrom } from "../../tensor/index.ts";
import { placesOfPart } from "../parts.ts";

/** The ranks that keys go round, as one of them sees it. */
export interface Ring {
  readonly ranks: number;
  /** The place of this rank: an int64 scalar. */
  place(): Value;
  /** What the rank before this one has. */
  shift(value: Value): Value;
}

/** One rank, whose keys are all there are. */
export function ringOfOne(builder: GraphBuilder): Ring {
  return {
    ranks: 1,
    place: () => builder.constant(tensorFrom("int64", [], [0])),
    shift: (value) => value,
  };
}

/** What a rank has of queries, keys, values and the mask: (…, length, size). */
export interface RingParts {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  /** It is added to scores. Its columns are the keys of this rank, those of all ranks, or one. */
  readonly mask: Value | undefined;
}

export interface RingOptions {
  readonly ring: Ring;
  readonly scale: number;
  /** Whether a query sees only keys up to its own place. */
  readonly causal: boolean;
  /** The sizes of the sections of the whole sequence of keys, each cut evenly among the ranks. */
  readonly sections: readonly number[];
}

/** A block has at most so many queries, if their number divides so. */
export const MOST_QUERIES = 256;

/** How far below all others a score is that must not count. It is finite, so that no NaN arises. */
function hiddenScore(dtype: DType): number {
  return dtype === "float16" ? -3e4 : -1e9;
}

/** Some of the queries of a rank, and which of the keys of any rank they may see. */
export interface Block {
  readonly start: number;
  readonly end: number;
  readonly keys: number;
}

/** With a causal mask, a block is a section: it sees the sections before it whole. */
export function blocksOf({ q, k }: RingParts, { causal, sections, ring }: RingOptions): Block[] {
  const [length, keys] = [lengthOf(q), lengthOf(k)];
  const count = causal ? sections.length : evenCount(length);
  return Array.from({ length: count }, (_, index) => {
    const [start, end] = [(index * length) / count, ((index + 1) * length) / count];
    return {
      start,
      end,
      keys: causal ? ((sections[0] as number) / ring.ranks) * (index + 1) : keys,
    };
  });
}

/** The least number of equal blocks that are no larger than blocks should be. */
function evenCount(length: number): number {
  let count = Math.ceil(length / MOST_QUERIES);
  while (length % count !== 0) count++;
  return count;
}

/** The sections of a sequence that one rank computes alone. */
export function ownSections(length: number): readonly number[] {
  const count = evenCount(length);
  return Array.from({ length: count }, () => length / count);
}

const lengthOf = (x: Value) => x.shape.at(-2) as number;
export const rows = (x: Value, start: number, end: number) => range(x, -2, start, end);
export const columns = (x: Value, end: number) => range(x, -1, 0, end);

function range(x: Value, axis: number, start: number, end: number): Value {
  if (start === 0 && end === x.shape.at(axis)) return x;
  return slice(x, [{ axis, start, end }]);
}

/** What is added to the scores of blocks, for the keys of one rank after the other. */
export class Bias {
  readonly #parts: RingParts;
  readonly #options: RingOptions;
  #mask: Value | undefined;

  constructor(parts: RingParts, options: RingOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#mask = parts.mask;
  }

  /** Goes on to the keys of the next rank. */
  next(): void {
    if (this.#travels()) this.#mask = this.#options.ring.shift(this.#mask as Value);
  }

  #travels(): boolean {
    return this.#parts.mask?.shape.at(-1) === lengthOf(this.#parts.k) && this.#all() > 1;
  }

  #all(): number {
    return this.#options.ring.ranks;
  }

  /** @param turn how many ranks back the one is whose keys these are */
  addTo(scores: Value, block: Block, turn: number): Value {
    const masked = this.#withMask(scores, block, turn);
    if (!this.#options.causal) return masked;
    const bias = turn === 0 ? hiddenOwn(scores, block) : this.#hiddenOther(scores, block, turn);
    return add(masked, bias);
  }

  #withMask(scores: Value, { start, end, keys }: Block, turn: number): Value {
    const mask = this.#mask;
    if (mask === undefined) return scores;
    const isByQuery = mask.shape.length > 1 && lengthOf(mask) > 1;
    const own = isByQuery ? rows(mask, start, end) : mask;
    const width = own.shape.at(-1) as number;
    if (width === 1) return add(scores, own);
    const here = width === lengthOf(this.#parts.k) ? own : this.#columnsAt(own, turn);
    return add(scores, columns(here, keys));
  }

  /** The columns of the rank whose keys are here. */
  #columnsAt(mask: Value, turn: number): Value {
    const { ring, sections } = this.#options;
    const { builder } = mask;
    const place = () =>
      builder.one("Mod", [
        add(ring.place(), ring.ranks - turn),
        builder.scalar("int64", ring.ranks),
      ]);
    return gather(mask, placesOfPart({ builder, ranks: ring.ranks, place }, sections), -1);
  }

  /** Of its own section, a query sees the keys of ranks before it, and none of ranks behind it. */
  #hiddenOther({ builder, dtype }: Value, { start, end, keys }: Block, turn: number): Value {
    const isBehind = less(this.#options.ring.place(), turn);
    const hidden = builder.scalar(dtype, hiddenScore(dtype));
    const section = expand(where(isBehind, hidden, builder.scalar(dtype, 0)), [end - start]);
    return start === 0 ? section : pad(section, [keys - (end - start)], [0]);
  }
}

/** A query sees the keys up to its own place. */
function hiddenOwn({ builder, dtype }: Value, { start, end, keys }: Block): Value {
  const places = (from: number, to: number, shape: readonly number[]) => {
    const numbers = Array.from({ length: to - from }, (_, index) => from + index);
    return builder.constant(tensorFrom("int32", shape, numbers));
  };
  const queries = places(start, end, [end - start, 1]);
  const isSeen = greaterOrEqual(queries, places(0, keys, [keys]));
  return where(isSeen, builder.scalar(dtype, 0), builder.scalar(dtype, hiddenScore(dtype)));
}

export function scaled(x: Value, scale: number): Value {
  return scale === 1 ? x : mul(x, scale);
}
