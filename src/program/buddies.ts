/**
 * What a rank's buddy needs to make the same update: the sums of gradients that the rank has made.
 * They travel behind each bucket, before a step is decided, so that whoever decides it knows that
 * every part can be updated on two nodes.
 */
import type { Buddy } from "../plan/index.ts";
import { GRADIENTS } from "./buffers.ts";
import type { Ownership } from "./ownership.ts";
import type { CollectiveStage } from "./program.ts";
import { cutEvenly, extentOf, lengthOf, type Span } from "./spans.ts";

export interface BuddyOptions {
  readonly ownership: Ownership;
  readonly rank: number;
  /** The group of all ranks. */
  readonly all: string;
  readonly size: number;
}

/**
 * Sends the sums of some spans from the ranks that own their parts to the buddies of these. A rank
 * that is the buddy of several receives from one after the other.
 */
export function sumsToBuddies(
  spans: readonly Span[],
  what: string,
  { ownership, rank, all, size }: BuddyOptions,
): CollectiveStage[] {
  const { buddies, groups } = ownership;
  const placeOf = (of: number) => groups.find((own) => own.includes(of))?.indexOf(of) as number;
  const turns = inTurns(buddies);
  return spans.flatMap((span) => {
    const cut = cutEvenly(span, ownership.ranks.length);
    const partOf = (of: number) => cut[placeOf(of)] as Span;
    return turns.map((now): CollectiveStage => {
      const sent = now.find(({ of }) => of === rank);
      const received = now.find(({ at }) => at === rank);
      const countsFor = (peer: number | undefined, of: number | undefined) =>
        Array.from({ length: size }, (_, other) =>
          other === peer && of !== undefined ? lengthOf([partOf(of)]) : 0,
        );
      return {
        name: `sums of ${what} to buddies`,
        mode: "collective",
        group: all,
        call: {
          kind: "allToAll",
          sendCounts: countsFor(sent?.at, sent?.of),
          receiveCounts: countsFor(received?.of, received?.of),
          dtype: span.group.dtype,
        },
        data: placeIn(sent === undefined ? span : partOf(sent.of)),
        into: placeIn(received === undefined ? span : partOf(received.of)),
      };
    });
  });
}

/** In each turn, a rank is the buddy of one other at most. */
function inTurns(buddies: readonly Buddy[]): readonly Buddy[][] {
  const turns: Buddy[][] = [];
  const counts = new Map<number, number>();
  for (const buddy of buddies) {
    const turn = counts.get(buddy.at) ?? 0;
    counts.set(buddy.at, turn + 1);
    const now = turns[turn];
    if (now === undefined) turns.push([buddy]);
    else now.push(buddy);
  }
  return turns;
}

function placeIn(span: Span): NonNullable<CollectiveStage["data"]> {
  return { buffer: GRADIENTS, byteOffset: extentOf(span).byteOffset };
}
