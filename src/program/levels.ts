/**
 * The two levels on which the ranks of a step reach each other: inner groups of ranks, and outer
 * groups of the ranks that have the same place in their inner groups.
 */
import { LockstepError } from "../errors.ts";
import { groupOf, isWithinNode, type Mesh, regularTopology, type Topology } from "../mesh/index.ts";

/** A mesh laid over nodes. */
export interface Ground {
  readonly mesh: Mesh;
  readonly topology: Topology;
}

export interface RankGroups {
  /** The ranks of the inner groups. */
  readonly members: readonly (readonly number[])[];
  /** The axes of the mesh that an inner group spans; undefined if it is a part of an axis. */
  readonly axes: readonly string[] | undefined;
  /**
   * The names of a rank's groups in its program. `inner` or `outer` is `all` if the other has one
   * rank only.
   */
  readonly names: { readonly all: string; readonly inner: string; readonly outer: string };
}

/** Groups for sums over all ranks. The ranks of an inner group read each other's memory. */
export function rankGroups({ mesh, topology }: Ground): RankGroups {
  const axes = wideAxes(mesh);
  // The inner groups span as many of the last axes as lie within a node.
  for (let first = 0; first < axes.length; first++) {
    const groups = groupsOver(mesh, axes.slice(first));
    if (areInPlace(groups, topology)) return groups;
  }
  const { nodes } = regularTopology(topology);
  if (axes.length === 1 && nodes.some((own) => own.length > 1)) {
    const all = nameOfAll(mesh);
    return named(all, nodes, undefined, [`${all}, within a node`, `${all}, across nodes`]);
  }
  return groupsOver(mesh, []);
}

/**
 * Groups for values that are sharded over some axes: the ranks of an outer group hold the same
 * part.
 * @throws INVALID_OPTION if the ranks of an inner group do not follow each other
 */
export function shardGroups({ mesh }: Ground, axes: readonly string[]): RankGroups {
  const groups = groupsOver(mesh, axes);
  if (groups.members.flat().every((rank, index) => rank === index)) return groups;
  const others = wideAxes(mesh).filter((name) => !axes.includes(name));
  throw new LockstepError(
    "INVALID_OPTION",
    `The mesh has the axis ${nameOf(axes)} before ${nameOf(others)}: the ranks that share a value do not follow each other.`,
    { hint: "Put the axes over which values are sharded last." },
  );
}

/** Whether the ranks of each inner group read each other's memory in place. */
export function areInPlace({ members }: RankGroups, topology: Topology): boolean {
  return members.every((own) => isWithinNode(topology, own));
}

/** Whether the ranks of each group over some axes read each other's memory in place. */
export function isInPlaceOver({ mesh, topology }: Ground, axes: readonly string[]): boolean {
  return areInPlace(groupsOver(mesh, axes), topology);
}

/** Finds whether the ranks at two places of a group share a node. */
export function nearIn({ topology }: Ground, ranks: readonly number[]) {
  return (one: number, other: number): boolean =>
    isWithinNode(topology, [ranks[one] as number, ranks[other] as number]);
}

/** The inner group of a rank, its number among them, and the place of the rank in it. */
export function placeIn(members: RankGroups["members"], rank: number) {
  const number = members.findIndex((own) => own.includes(rank));
  const ranks = members[number] as readonly number[];
  return { number, ranks, place: ranks.indexOf(rank) };
}

/** The ranks of a rank's groups of several ranks, by name. */
export function groupsOfRank(
  { members, names }: RankGroups,
  rank: number,
): Map<string, readonly number[]> {
  const { ranks, place } = placeIn(members, rank);
  const groups = [
    [names.all, members.flat()],
    ...(names.inner === names.all ? [] : [[names.inner, ranks] as const]),
    ...(names.outer === names.all
      ? []
      : [[names.outer, members.map((own) => own[place] as number)] as const]),
  ] as const;
  return new Map(groups.filter(([, own]) => own.length > 1));
}

/** The name of the group of all ranks. */
export function nameOfAll(mesh: Mesh): string {
  return nameOf(wideAxes(mesh));
}

function groupsOver(mesh: Mesh, axes: readonly string[]): RankGroups {
  const seen = new Set<number>();
  const members: number[][] = [];
  for (let rank = 0; rank < mesh.size; rank++) {
    if (seen.has(rank)) continue;
    const own = groupOf(mesh, axes, rank);
    members.push(own);
    for (const member of own) seen.add(member);
  }
  const others = wideAxes(mesh).filter((name) => !axes.includes(name));
  return named(nameOfAll(mesh), members, axes, [nameOf(axes), nameOf(others)]);
}

function named(
  all: string,
  members: RankGroups["members"],
  axes: RankGroups["axes"],
  [inner, outer]: readonly [inner: string, outer: string],
): RankGroups {
  const isOne = members.length === 1;
  const isAlone = members.every((own) => own.length === 1);
  const names = { all, inner: isOne || isAlone ? all : inner, outer: isAlone ? all : outer };
  return { members, axes, names };
}

/** The names of the axes of more than one rank. */
function wideAxes({ axes }: Mesh): string[] {
  return axes.filter(({ size }) => size > 1).map(({ name }) => name);
}

function nameOf(axes: readonly string[]): string {
  return axes.join(" and ");
}
