/**
 * The nodes on which ranks run. Lowering uses which ranks share a node; a node is not an axis of a
 * mesh.
 */
import { LockstepError } from "../errors.ts";

export interface Topology {
  /**
   * The ranks of each node (machine), ascending. Ranks of one node can read each other's memory in
   * place.
   */
  readonly nodes: readonly (readonly number[])[];
}

/** A topology of `nodes` nodes with equally many ranks each, in order. @throws INVALID_OPTION */
export function evenTopology(ranks: number, nodes: number): Topology {
  if (!Number.isInteger(ranks / nodes) || nodes < 1) {
    throw new LockstepError(
      "INVALID_OPTION",
      `${ranks} workers cannot be divided evenly among ${nodes} nodes.`,
    );
  }
  const each = ranks / nodes;
  return {
    nodes: Array.from({ length: nodes }, (_, node) =>
      Array.from({ length: each }, (__, place) => node * each + place),
    ),
  };
}

/**
 * The topology that a mesh can be laid over: nodes with equally many ranks each, in the order of
 * the ranks. If the real nodes are not so, every rank counts as a node of its own.
 */
export function regularTopology(topology: Topology): Topology {
  const found = known.get(topology) ?? madeRegular(topology);
  known.set(topology, found).set(found, found);
  return found;
}

/** Choices ask many times for the same one, and there may be thousands of ranks. */
const known = new WeakMap<Topology, Topology>();

function madeRegular({ nodes }: Topology): Topology {
  const isEven = nodes.every((own) => own.length === nodes[0]?.length);
  const follow = nodes.flat().every((rank, index) => rank === index);
  if (isEven && follow) return { nodes };
  return { nodes: nodes.flat().map((_, rank) => [rank]) };
}

/** Whether all of these ranks are on one node. */
export function isWithinNode({ nodes }: Topology, ranks: readonly number[]): boolean {
  return nodes.some((own) => ranks.every((rank) => own.includes(rank)));
}
