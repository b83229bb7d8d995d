/**
 * What a rank's buddy needs to make the same update: the sums of gradients that the rank has made.
 * They travel behind each bucket, before a step is decided, so that whoever decides it knows that
 * every part can be updated on two nodes.
 */
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
  const turnOf = ({ of, at }: (typeof buddies)[number]) =>
    buddies.filter((other) => other.at === at && other.of < of).length;
  const turns = Math.max(-1, ...buddies.map(turnOf)) + 1;
  return spans.flatMap((span) => {
    const cut = cutEvenly(span, ownership.ranks.length);
    const partOf = (of: number) => cut[placeOf(of)] as Span;
    return Array.from({ length: turns }, (_, turn): CollectiveStage => {
      const now = buddies.filter((buddy) => turnOf(buddy) === turn);
      const sent = now.find(({ of }) => of === rank);
      const received = now.find(({ at }) => at === rank);
      const countsFor = (peer: number | undefined, of: number | undefined) =>
        Array.from({ length: size }, (__, other) =>
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

function placeIn(span: Span): NonNullable<CollectiveStage["data"]> {
  return { buffer: GRADIENTS, byteOffset: extentOf(span).byteOffset };
}
