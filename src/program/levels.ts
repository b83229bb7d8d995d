/**
 * How the ranks of a step reach each other, for sums over all of them: an inner level, whose ranks read each other's memory in place, and an
 * outer one, between whose ranks messages go.
 */
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
  const axes = mesh.axes.filter(({ size }) => size > 1).map(({ name }) => name);
  const all = axes.join(" and ");
  const ranks = Array.from({ length: mesh.size }, (_, rank) => rank);
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
    const members = distinct(ranks.map((rank) => groupOf(mesh, inner, rank)));
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

function distinct(groups: readonly number[][]): number[][] {
  return [...new Map(groups.map((group) => [group.join(), group])).values()];
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
