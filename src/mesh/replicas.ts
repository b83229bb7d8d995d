/**
 * The axes of a mesh that give ranks other samples (`data`, `shard`), the axis along which the stages
 * of a model lie (`pipeline`), and those that divide its matrices (all others).
 */
import { groupOf, type Mesh } from "./mesh.ts";
import type { Topology } from "./topology.ts";

const SAMPLE_AXES: readonly string[] = ["data", "shard"];

/** The axis along which the stages of a model lie. */
export const PIPELINE = "pipeline";

/** The axes of several ranks that divide the matrices of a model. */
export function modelAxes({ axes }: Mesh): string[] {
  return axes
    .filter(({ name, size }) => size > 1 && !isSampleAxis(name) && name !== PIPELINE)
    .map(({ name }) => name);
}

export function isSampleAxis(name: string): boolean {
  return SAMPLE_AXES.includes(name);
}

/** The number of ranks that divide a replica of the model among them. */
export function replicaSize({ axes }: Mesh): number {
  return axes.reduce((size, axis) => size * (isSampleAxis(axis.name) ? 1 : axis.size), 1);
}

/**
 * The ranks that have the same part of each matrix as one rank: with other samples, or with another
 * stage of the model.
 */
export interface Peers {
  /** Ascending, with that rank. */
  readonly ranks: readonly number[];
  /** The place of that rank among them. */
  readonly place: number;
  /** A mesh of them alone, in their order, and the nodes on which they run. */
  readonly mesh: Mesh;
  readonly topology: Topology;
}

export function peersOf(mesh: Mesh, { nodes }: Topology, rank: number): Peers {
  const axes = mesh.axes.filter(({ name }) => isSampleAxis(name) || name === PIPELINE);
  const ranks = groupOf(
    mesh,
    axes.map(({ name }) => name),
    rank,
  );
  const placed = nodes.map((own) =>
    own.flatMap((of) => (ranks.includes(of) ? [ranks.indexOf(of)] : [])),
  );
  return {
    ranks,
    place: ranks.indexOf(rank),
    mesh: { axes, size: ranks.length },
    topology: { nodes: placed.filter((own) => own.length > 0) },
  };
}

/** The index of a rank on an axis. */
export function placeOnAxis(mesh: Mesh, axis: string, rank: number): number {
  return groupOf(mesh, [axis], rank).indexOf(rank);
}
