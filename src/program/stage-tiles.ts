/** Which tiles of gradients the stages of a pipeline make, and which stage has which. */
import type { PassTask, StagePart, StepGraph } from "../plan/index.ts";
import { flatName } from "./flat.ts";
import type { LayoutGroup } from "./layout.ts";
import type { Extent } from "./program.ts";
import { entrySpan, type Span } from "./spans.ts";
import { sumOf } from "./sums.ts";

/** The stage that makes each gradient, by the name of its parameter. */
export type Makers = ReadonlyMap<string, number>;

/** How many elements of a tile each stage makes. */
export function elementsByStage(
  group: LayoutGroup,
  tile: number,
  makers: Makers,
): Map<number, number> {
  const elements = new Map<number, number>();
  const whole = { group, start: tile * group.tile, end: (tile + 1) * group.tile };
  for (const entry of group.entries) {
    const { start, end } = intersection(whole, entrySpan(group, entry));
    const stage = makers.get(entry.name);
    if (end <= start || stage === undefined) continue;
    elements.set(stage, (elements.get(stage) ?? 0) + end - start);
  }
  return elements;
}

/** By tile of a group: the stage that makes most of it. */
export function stagesOfTiles(group: LayoutGroup, makers: Makers): number[] {
  let before = 0;
  return Array.from({ length: group.length / group.tile }, (_, tile) => {
    const found = [...elementsByStage(group, tile, makers)];
    const [most] = found.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
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

/** The tiles of a group that hold the condition; neighbours are one span. */
export function spansOfTiles(group: LayoutGroup, isIn: (tile: number) => boolean): Span[] {
  const { tile, length } = group;
  const spans: Span[] = [];
  for (let at = 0; at < length / tile; at++) {
    if (!isIn(at)) continue;
    const before = spans.at(-1);
    const end = (at + 1) * tile;
    if (before?.end === at * tile) spans[spans.length - 1] = { ...before, end };
    else spans.push({ group, start: at * tile, end });
  }
  return spans;
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
