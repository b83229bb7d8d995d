/**
 * Which parts of the flat vectors each rank of a group owns. A rank sums the gradients of its parts
 * and updates parameters and slots there; new parameters are gathered. Other ranks need its slots
 * only for a checkpoint. After Rajbhandari et al., "ZeRO", 2020 (its first stage).
 */
import type { Layout, LayoutGroup } from "./layout.ts";
import { areInPlace, type Ground, placeIn, type RankGroups } from "./levels.ts";
import { allGather, type CollectiveStage, type Extent, type TensorRef } from "./program.ts";
import { cutEvenly, extentOf, lengthOf, type Span, wholeSpan } from "./spans.ts";

export interface Ownership {
  /** The name of the group of ranks that divide the parts among them. */
  readonly group: string;
  /** Whether they read each other's memory in place; else messages go between them. */
  readonly isInPlace: boolean;
  /** The place of this rank among them, and their ranks in the run. */
  readonly place: number;
  readonly ranks: readonly number[];
  /**
   * Spans, each cut into a part for each rank. Every rank owns all of the groups that have no cut.
   */
  readonly cuts: readonly (readonly Span[])[];
}

/** The inner group of a rank owns spans, a part of each for each of its ranks. */
export function ownershipOf(
  { topology }: Ground,
  groups: RankGroups,
  rank: number,
  spans: readonly Span[],
): Ownership {
  const { ranks, place } = placeIn(groups.members, rank);
  const cuts = spans.map((span) => cutEvenly(span, ranks.length));
  const isInPlace = areInPlace(groups, topology);
  return { group: groups.names.inner, isInPlace, place, ranks, cuts };
}

/** A span that one rank owns, given by its place. */
export interface Owned {
  readonly owner: number;
  readonly span: Span;
}

/** The cuts of one group; none if every rank owns all of it. */
export function cutsOf(ownership: Ownership | undefined, group: LayoutGroup): (readonly Span[])[] {
  const cuts = ownership?.cuts.filter(([first]) => first?.group.byteOffset === group.byteOffset);
  return cuts ?? [];
}

/** The spans of a group that this rank owns. */
export function ownSpans(ownership: Ownership | undefined, group: LayoutGroup): Span[] {
  const cuts = cutsOf(ownership, group);
  if (ownership === undefined || cuts.length === 0) return [wholeSpan(group)];
  return cuts.map((cut) => ({ ...(cut[ownership.place] as Span), group }));
}

/** By the cuts of an ownership and the place of a group: the owner of each tile. */
const known = new WeakMap<Ownership["cuts"], Map<number, readonly number[]>>();

function ownersOf(ownership: Ownership, group: LayoutGroup): readonly number[] {
  const tables = known.get(ownership.cuts) ?? new Map<number, readonly number[]>();
  known.set(ownership.cuts, tables);
  const found = tables.get(group.byteOffset);
  if (found !== undefined) return found;
  const owners: number[] = [];
  for (const cut of cutsOf(ownership, group)) {
    for (const [place, { start, end }] of cut.entries()) {
      for (let at = start; at < end; at += group.tile) owners[at / group.tile] = place;
    }
  }
  tables.set(group.byteOffset, owners);
  return owners;
}

/** Cuts a span at changes of the owner. */
export function ownedSpans(ownership: Ownership, { group, start, end }: Span): Owned[] {
  const { tile } = group;
  const owners = ownersOf(ownership, group);
  const ownerAt = (at: number) => owners[Math.floor(at / tile)] ?? 0;
  const spans: Owned[] = [];
  for (let at = start; at < end; ) {
    const owner = ownerAt(at);
    let next = at;
    while (next < end && ownerAt(next) === owner) {
      next = Math.min(end, (Math.floor(next / tile) + 1) * tile);
    }
    spans.push({ owner, span: { group, start: at, end: next } });
    at = next;
  }
  return spans;
}

/** A part of a buffer that one rank alone has written. */
export interface Held extends Extent {
  readonly buffer: string;
  readonly rank: number;
}

/** What each owner of a group's parts holds of groups that lie as it does. */
export function heldParts(
  ownership: Ownership | undefined,
  group: LayoutGroup,
  lying: readonly { readonly buffer: string; readonly group: LayoutGroup }[],
): Held[] {
  return lying.flatMap(({ buffer, group: own }) =>
    cutsOf(ownership, group).flatMap((cut) =>
      cut.map((part, place) => {
        const rank = ownership?.ranks[place] as number;
        return { buffer, rank, ...extentOf({ ...part, group: own }) };
      }),
    ),
  );
}

/** A place in the memory of the rank that has this place in the group. */
export function ofOwner({ place, ranks }: Ownership, owner: number, ref: TensorRef): TensorRef {
  return owner === place ? ref : { ...ref, rank: ranks[owner] as number };
}

/** All-gathers the parts of a cut in a buffer that has their layout. */
export function gatherParts(
  name: string,
  group: string,
  cut: readonly Span[],
  buffer: string,
): CollectiveStage {
  const first = cut[0] as Span;
  const counts = cut.map((part) => lengthOf([part]));
  const data = { buffer, byteOffset: extentOf(first).byteOffset };
  return allGather(name, group, { counts, dtype: first.group.dtype }, data);
}

/** The bytes of a buffer that this rank touches: what it owns, and groups that all own. */
export function ownExtents({ groups }: Layout, ownership: Ownership | undefined): Extent[] {
  const own = groups.flatMap((group) => ownSpans(ownership, group));
  return own.map(extentOf).filter(({ byteLength }) => byteLength > 0);
}

/** What remains of a buffer without the parts that other ranks own. */
export function withoutExtents(byteLength: number, others: readonly Extent[]): Extent[] {
  const rest: Extent[] = [];
  let at = 0;
  const sorted = others.toSorted((a, b) => a.byteOffset - b.byteOffset);
  for (const other of [...sorted, { byteOffset: byteLength, byteLength: 0 }]) {
    if (other.byteOffset > at) rest.push({ byteOffset: at, byteLength: other.byteOffset - at });
    at = Math.max(at, other.byteOffset + other.byteLength);
  }
  return rest;
}
