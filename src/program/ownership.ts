/**
 * Which parts of the flat vectors each rank of a group owns. A rank sums the gradients of its parts
 * and updates parameters and slots there; new parameters are gathered. Other ranks need its slots
 * only for a checkpoint. After Rajbhandari et al., "ZeRO", 2020 (its first stage).
 */
import { type Buddy, isOfKind, type StepGraph } from "../plan/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import { areInPlace, type Ground, placeIn, type RankGroups } from "./levels.ts";
import { allGather, type CollectiveStage, type Extent, type TensorRef } from "./program.ts";
import { cutEvenly, extentOf, lengthOf, type Span, wholeSpan } from "./spans.ts";

export interface Ownership extends Owners {
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
  /** The places whose parts this rank updates for the safety of others, beside its own. */
  readonly wards: readonly number[];
}

/** The inner group of a rank owns spans, a part of each for each of its ranks. */
export function ownershipOf(
  { topology }: Ground,
  groups: RankGroups,
  rank: number,
  spans: readonly Span[],
  buddies: readonly Buddy[],
): Ownership {
  const { members } = groups;
  const { ranks, place } = placeIn(members, rank);
  const cuts = spans.map((span) => cutEvenly(span, ranks.length));
  const isInPlace = areInPlace(groups, topology);
  const own = buddies.filter(({ at }) => at === rank);
  const wards = own.map(({ of }) => placeIn(members, of).place);
  const group = groups.names.inner;
  return { group, isInPlace, place, ranks, cuts, groups: members, buddies, wards };
}

/** The buddies of a step: all updates that are shared out have the same. */
export function buddiesIn({ tasks }: StepGraph): readonly Buddy[] {
  return tasks.filter(isOfKind("update")).find(({ buddies }) => buddies)?.buddies ?? [];
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

/** The ranks of this group whose parts this rank updates, too. */
export function wardsOf(ownership: Ownership | undefined): number[] {
  return (ownership?.wards ?? []).map((place) => ownership?.ranks[place] as number);
}

/** The spans of a group that this rank holds and updates: its own, and those of its wards. */
export function updatedSpans(ownership: Ownership | undefined, group: LayoutGroup): Span[] {
  const cuts = cutsOf(ownership, group);
  const { wards = [] } = ownership ?? {};
  const ofWards = cuts.flatMap((cut) => wards.map((place) => ({ ...(cut[place] as Span), group })));
  return [...ownSpans(ownership, group), ...ofWards];
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

/** A part of a buffer that a rank looks after: among the ranks of its group, it has written it. */
export interface Held extends Extent {
  readonly buffer: string;
  readonly rank: number;
}

/** A part of what an update makes, that goes to all ranks at its end. */
export interface Gathered extends Held {
  /** Whether no rank of another group and no buddy makes the same. */
  readonly isMadeOnce: boolean;
}

/** Who holds the parts of a state that ranks divide among them. */
export interface Owners {
  /** Groups of ranks; each holds everything. Ranks of the same place hold the same parts. */
  readonly groups: readonly (readonly number[])[];
  readonly buddies: readonly Buddy[];
}

/** All ranks that hold the parts of one rank, beginning with it. */
export function holdersOf({ groups, buddies }: Owners, rank: number): number[] {
  const group = groups.find((ranks) => ranks.includes(rank)) ?? [rank];
  const place = group.indexOf(rank);
  const same = groups.map((ranks) => ranks[place] as number);
  const doubled = buddies.filter(({ of }) => same.includes(of)).map(({ at }) => at);
  return [rank, ...same.filter((other) => other !== rank), ...doubled];
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

/** The bytes of spans of a layout, such as those that this rank owns. */
export function extentsOf(
  { groups }: Layout,
  ownership: Ownership | undefined,
  spansOf: typeof ownSpans,
): Extent[] {
  const own = groups.flatMap((group) => spansOf(ownership, group));
  return own.map(extentOf).filter(({ byteLength }) => byteLength > 0);
}

/** What is left of parts of a buffer without others. */
export function withoutExtents(extents: readonly Extent[], others: readonly Extent[]): Extent[] {
  const sorted = others.toSorted((a, b) => a.byteOffset - b.byteOffset);
  return extents.flatMap(({ byteOffset, byteLength }) => {
    const rest: Extent[] = [];
    const end = byteOffset + byteLength;
    let at = byteOffset;
    for (const other of [...sorted, { byteOffset: end, byteLength: 0 }]) {
      const to = Math.min(end, other.byteOffset);
      if (to > at) rest.push({ byteOffset: at, byteLength: to - at });
      at = Math.max(at, other.byteOffset + other.byteLength);
    }
    return rest;
  });
}
