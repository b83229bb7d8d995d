/** Which tiles of gradients the stages of a pipeline make, and which rank has which. */
import type { PassTask, StagePart, StepGraph } from "../plan/index.ts";
import { flatName } from "./flat.ts";
import { ALIGNMENT, type LayoutGroup } from "./layout.ts";
import type { Extent } from "./program.ts";
import { entrySpan, type Span } from "./spans.ts";
import { sumOf } from "./sums.ts";

/** The stage (or the rank) that makes each gradient, by the name of its parameter. */
export type Makers = ReadonlyMap<string, number>;

/** By tile of a group: how many of its elements each stage makes. */
function elementsByTile(group: LayoutGroup, makers: Makers): Map<number, number>[] {
  const { tile, length } = group;
  const tiles = Array.from({ length: length / tile }, () => new Map<number, number>());
  for (const entry of group.entries) {
    const stage = makers.get(entry.name);
    if (stage === undefined) continue;
    for (const { start, end } of cutAtTiles(entrySpan(group, entry))) {
      const elements = tiles[Math.floor(start / tile)] as Map<number, number>;
      elements.set(stage, (elements.get(stage) ?? 0) + end - start);
    }
  }
  return tiles;
}

function cutAtTiles({ group, start, end }: Span): Span[] {
  const pieces: Span[] = [];
  for (let at = start; at < end; ) {
    const next = Math.min(end, (Math.floor(at / group.tile) + 1) * group.tile);
    pieces.push({ group, start: at, end: next });
    at = next;
  }
  return pieces;
}

/**
 * By tile of a group: the place of the rank whose stages make most of it.
 * @param makers the place that makes each gradient
 */
export function placesOfTiles(group: LayoutGroup, makers: Makers): number[] {
  let before = 0;
  return elementsByTile(group, makers).map((elements) => {
    const [most] = [...elements].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    before = most?.[0] ?? before;
    return before;
  });
}

/**
 * Cuts a group among owners of its tiles. Within a cut, the parts follow each other in their order.
 * @param count of owners
 */
export function cutsByOwner(
  group: LayoutGroup,
  owners: readonly number[],
  count: number,
): Span[][] {
  const cuts: Span[][] = [];
  for (let at = 0; at < owners.length; ) {
    const cut: Span[] = [];
    for (let owner = 0; owner < count; owner++) {
      const start = at * group.tile;
      while (at < owners.length && owners[at] === owner) at += 1;
      cut.push({ group, start, end: at * group.tile });
    }
    cuts.push(cut);
  }
  return cuts;
}

/**
 * The spans that a stage sums after its last part: the tiles of which it makes something, with what
 * else is in them, which does not matter. Where another stage of its rank makes something of a tile,
 * which is summed at another time, only what the stage makes itself.
 * @param isBeside whether a stage is another one of the same rank
 */
export function spansOfStage(
  group: LayoutGroup,
  makers: Makers,
  { stage, isBeside }: { readonly stage: number; readonly isBeside: (stage: number) => boolean },
): Span[] {
  const { tile } = group;
  const tiles = elementsByTile(group, makers);
  const isShared = tiles.map((elements) => [...elements.keys()].some(isBeside));
  const whole = tiles.flatMap((elements, at): Span[] =>
    elements.has(stage) && isShared[at] === false
      ? [{ group, start: at * tile, end: (at + 1) * tile }]
      : [],
  );
  const parts = group.entries
    .filter(({ name }) => makers.get(name) === stage)
    .flatMap((entry) => {
      const { start, end } = entrySpan(group, entry);
      // Behind a tensor there is nothing up to where the next one may begin.
      const aligned = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
      return cutAtTiles({ group, start, end: aligned });
    })
    .filter(({ start }) => isShared[Math.floor(start / tile)] === true);
  return [...merged(whole, () => true), ...merged(parts, (at) => at % tile !== 0)];
}

/** Spans that follow each other, where they may be one. */
function merged(spans: readonly Span[], mayBeOne: (border: number) => boolean): Span[] {
  const found: Span[] = [];
  for (const span of spans) {
    const before = found.at(-1);
    if (before?.end === span.start && mayBeOne(span.start)) {
      found[found.length - 1] = { ...before, end: span.end };
    } else found.push(span);
  }
  return found;
}

export function intersection(one: Span, other: Span): Span {
  return { ...one, start: Math.max(one.start, other.start), end: Math.min(one.end, other.end) };
}

/** Extents that overlap or touch become one. */
export function joined(extents: readonly Extent[]): Extent[] {
  const found: Extent[] = [];
  for (const extent of extents.toSorted((a, b) => a.byteOffset - b.byteOffset)) {
    const before = found.at(-1);
    const end = extent.byteOffset + extent.byteLength;
    if (before === undefined || extent.byteOffset > before.byteOffset + before.byteLength) {
      found.push(extent);
      continue;
    }
    const last = Math.max(before.byteOffset + before.byteLength, end);
    found[found.length - 1] = { ...before, byteLength: last - before.byteOffset };
  }
  return found;
}

export function isSummed({ key }: LayoutGroup): boolean {
  return key === "summed";
}

/** The stage that makes each gradient and each other sum, and each state that is not summed. */
export function makersOf(step: StepGraph, pieces: readonly PassTask[]): Map<string, number> {
  return new Map(
    pieces.flatMap(({ stage, outputs }) =>
      outputs.map((name) => {
        const sum = sumOf(step, name);
        return [sum === undefined ? name : flatName(step, sum), stage?.stage ?? 0] as const;
      }),
    ),
  );
}

/** Whether a stage has no part after this one. */
export function isLast(pieces: readonly PassTask[], { stage, direction }: StagePart): boolean {
  const own = pieces.filter((piece) => piece.stage?.stage === stage);
  return own.at(-1)?.stage?.direction === direction;
}
