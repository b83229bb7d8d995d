/**
 * Who looks after the parameters and the optimizer state of stages: the ranks that compute them, or,
 * with ZeRO-1, each of them for some of their tiles.
 */
import type { LayoutGroup } from "./layout.ts";
import { areInPlace, type Ground, placeIn, type RankGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { cutsByOwner, isSummed, type Makers, placesOfTiles } from "./stage-tiles.ts";

export interface StageOwners {
  readonly ground: Ground;
  readonly rank: number;
  /** The groups of the flat vectors. */
  readonly vectors: readonly LayoutGroup[];
  /** The place in its pipeline of the rank that makes each gradient. */
  readonly makers: Makers;
  /** The ranks of a pipeline. */
  readonly count: number;
}

/**
 * @param groups each is a pipeline, or several: then the ranks of a group that have the same place in
 *   theirs share out its tiles
 */
export function ownershipOfStages(
  groups: RankGroups,
  { ground, rank, vectors, makers, count }: StageOwners,
): Ownership {
  const { members, names } = groups;
  const { ranks, place } = placeIn(members, rank);
  const replicas = ranks.length / count;
  const cuts = vectors
    .filter((group) => !isSummed(group))
    .flatMap((group) => {
      const ofTiles = placesOfTiles(group, makers);
      return cutsByOwner(group, sharedOut(ofTiles, count, replicas), ranks.length);
    });
  const isInPlace = areInPlace(groups, ground.topology);
  const group = names.inner;
  return { group, isInPlace, place, ranks, cuts, groups: members, buddies: [], wards: [] };
}

/** By tile: its owner, from the place that makes it. Pipelines follow each other in a group. */
function sharedOut(ofTiles: readonly number[], count: number, replicas: number): number[] {
  const all = new Map<number, number>();
  for (const place of ofTiles) all.set(place, (all.get(place) ?? 0) + 1);
  const seen = new Map<number, number>();
  return ofTiles.map((place) => {
    const before = seen.get(place) ?? 0;
    seen.set(place, before + 1);
    const replica = Math.floor((before * replicas) / (all.get(place) as number));
    return replica * count + place;
  });
}
