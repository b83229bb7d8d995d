/**
 * Who looks after the parameters and the optimizer state of a stage: the ranks that compute it, or,
 * with ZeRO-1, each of them for some of its tiles.
 */
import type { LayoutGroup } from "./layout.ts";
import { areInPlace, type Ground, placeIn, type RankGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { cutsByOwner, isSummed, type Makers, stagesOfTiles } from "./stage-tiles.ts";

export interface StageOwners {
  readonly ground: Ground;
  readonly rank: number;
  /** The groups of the flat vectors. */
  readonly vectors: readonly LayoutGroup[];
  readonly makers: Makers;
  /** The number of stages. */
  readonly stages: number;
}

/**
 * @param groups each has all stages, once or several times: then the ranks of a group that have the
 *   same stage share out its tiles
 */
export function ownershipOfStages(
  groups: RankGroups,
  { ground, rank, vectors, makers, stages }: StageOwners,
): Ownership {
  const { members, names } = groups;
  const { ranks, place } = placeIn(members, rank);
  const replicas = ranks.length / stages;
  const cuts = vectors
    .filter((group) => !isSummed(group))
    .flatMap((group) => {
      const ofTiles = stagesOfTiles(group, makers);
      return cutsByOwner(group, sharedOut(ofTiles, stages, replicas), ranks.length);
    });
  const isInPlace = areInPlace(groups, ground.topology);
  const group = names.inner;
  return { group, isInPlace, place, ranks, cuts, groups: members, buddies: [], wards: [] };
}

/** By tile: the place of its owner, from its stage. Replica after replica, each has all stages. */
function sharedOut(ofTiles: readonly number[], stages: number, replicas: number): number[] {
  const all = new Map<number, number>();
  for (const stage of ofTiles) all.set(stage, (all.get(stage) ?? 0) + 1);
  const seen = new Map<number, number>();
  return ofTiles.map((stage) => {
    const before = seen.get(stage) ?? 0;
    seen.set(stage, before + 1);
    const replica = Math.floor((before * replicas) / (all.get(stage) as number));
    return replica * stages + stage;
  });
}
