/**
 * How the ranks of a step reach each other, for sums over all of them: an inner level, whose ranks read each other's memory in place, and an
 * outer one, between whose ranks messages go.
 */
import { LockstepError } from "../errors.ts";
import { groupOf, isWithinNode, type Mesh, regularTopology, type Topology } from "../mesh/index.ts";

/** A mesh laid over nodes. */
export interface Ground {
  readonly mesh: Mesh;
  readonly topology: Topology;
}

export interface RankGroups {
  /** The inner groups: ranks that sum in place, ascending. Groups of one where none share memory. */
  readonly members: readonly (readonly number[])[];
  /** The axes of the mesh that lie within the inner groups; undefined where a group is a part of an axis. */
  readonly innerAxes: readonly string[] | undefined;
  /** Names of the groups of a rank in its program; `inner` and `outer` are `all` where the other is of one rank. */
  readonly names: { readonly all: string; readonly inner: string; readonly outer: string };
}

export function rankGroups({ mesh, topology }: Ground): RankGroups {
  const axes = wideAxes(mesh);
  const all = nameOfAll(mesh);
  const ranks = ranksOf(mesh);
  const named = (
    members: number[][],
    innerAxes: string[] | undefined,
    inner: string,
    outer: string,
  ) => {
    const isOne = members.length === 1;
    const isAlone = members.every((own) => own.length === 1);
    const names = { all, inner: isOne ? all : inner, outer: isAlone ? all : outer };
    return { members, innerAxes, names };
  };
  // The longest run of axes from the last one on whose groups lie within a node.
  for (let first = 0; first < axes.length; first++) {
    const inner = axes.slice(first);
    const members = groupsOver(mesh, inner);
    if (!members.every((own) => isWithinNode(topology, own))) continue;
    return named(members, inner, inner.join(" and "), axes.slice(0, first).join(" and "));
  }
  const { nodes } = regularTopology(topology);
  if (axes.length === 1 && nodes.some((own) => own.length > 1)) {
    const members = nodes.map((own) => [...own]);
    return named(members, undefined, `${all}, within a node`, `${all}, across nodes`);
  }
  return named(
    ranks.map((rank) => [rank]),
    [],
    all,
    all,
  );
}

/** All groups of ranks along these axes, by their first ranks. */
function groupsOver(mesh: Mesh, axes: readonly string[]): number[][] {
  const seen = new Set<number>();
  return ranksOf(mesh).flatMap((rank) => {
    if (seen.has(rank)) return [];
    const group = groupOf(mesh, axes, rank);
    for (const member of group) seen.add(member);
    return [group];
  });
}

/** The ranks among which values are sharded over some axes, and those that hold the same parts. */
export interface ShardGroups {
  /** `replicas` are the ranks of one place in all shard groups. */
  readonly names: { readonly all: string; readonly shard: string; readonly replicas: string };
  /** The ranks of the shard groups, replica after replica. */
  readonly members: readonly (readonly number[])[];
  /** Whether the ranks of a shard group read each other's memory in place; else messages go between them. */
  readonly isInPlace: boolean;
  /** The replica that the rank is in, and its place among the ranks of it. */
  readonly replica: number;
  readonly place: number;
  /** The ranks of that replica. */
  readonly ranks: readonly number[];
}

/** @throws INVALID_OPTION where the ranks of a shard group do not follow each other */
export function shardGroups(
  { mesh, topology }: Ground,
  axes: readonly string[],
  rank: number,
): ShardGroups {
  const others = wideAxes(mesh).filter((name) => !axes.includes(name));
  const members = groupsOver(mesh, axes);
  if (!members.flat().every((other, index) => other === index)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `The mesh has the axis ${nameOf(axes)} before ${nameOf(others)}: the ranks that share a value do not follow each other.`,
      { hint: "Put the axes over which values are sharded last." },
    );
  }
  const replica = members.findIndex((own) => own.includes(rank));
  const ranks = members[replica] as readonly number[];
  return {
    replica,
    place: ranks.indexOf(rank),
    ranks,
    names: { all: nameOfAll(mesh), shard: nameOf(axes), replicas: nameOf(others) },
    members,
    isInPlace: members.every((own) => isWithinNode(topology, own)),
  };
}

/** The ranks of a rank's groups, by name. */
export function groupsOfShard(groups: ShardGroups): Map<string, readonly number[]> {
  const { names, members, ranks, place } = groups;
  const found = new Map([[names.all, members.flat()]]).set(names.shard, [...ranks]);
  if (members.length === 1) return found;
  return found.set(
    names.replicas,
    members.map((own) => own[place] as number),
  );
}

/** The name of the group of all ranks. */
export function nameOfAll(mesh: Mesh): string {
  return nameOf(wideAxes(mesh));
}

/** Axes of more than one rank. */
function wideAxes({ axes }: Mesh): string[] {
  return axes.filter(({ size }) => size > 1).map(({ name }) => name);
}

function nameOf(axes: readonly string[]): string {
  return axes.join(" and ");
}

function ranksOf({ size }: Mesh): number[] {
  return Array.from({ length: size }, (_, rank) => rank);
}

/** The ranks of a rank's groups, by name. */
export function groupsOfRank(
  { members, names }: RankGroups,
  rank: number,
): Map<string, readonly number[]> {
  const own = members.find((ranks) => ranks.includes(rank)) ?? [rank];
  const place = own.indexOf(rank);
  const groups = new Map<string, readonly number[]>([[names.all, members.flat()]]);
  if (names.inner !== names.all) groups.set(names.inner, own);
  if (names.outer !== names.all) {
    groups.set(
      names.outer,
      members.map((ranks) => ranks[place] as number),
    );
  }
  return groups;
}
