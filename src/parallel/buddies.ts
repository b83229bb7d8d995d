/**
 * Buddies: what the ranks of one node alone hold would be lost with that node. So a rank of another
 * node holds it too, and makes the same update to the same sums: both have the same bits after
 * every step, and no copy is ever older than the other. It comes after the strategies that shard.
 */
import { groupOf, type Mesh, type Topology } from "../mesh/index.ts";
import type { Buddy, StepGraph, StepTask } from "../plan/index.ts";
import type { Strategy } from "./strategy.ts";

/** @param topology the real nodes, which are lost as a whole */
export function buddies(topology: Topology): Strategy {
  return {
    name: "buddies on other nodes",
    rewrite(step, mesh): StepGraph {
      const tasks = step.tasks.map((task): StepTask => {
        if (task.kind !== "update" || task.granularity !== "element") return task;
        const found = task.axes.length === 0 ? [] : buddiesOf(topology, mesh, task.axes);
        return found.length === 0 ? task : { ...task, buddies: found };
      });
      return { ...step, tasks };
    },
  };
}

/**
 * One buddy for each part that ranks of one node alone would hold.
 * @param axes those over which the parts are divided
 */
export function buddiesOf(topology: Topology, mesh: Mesh, axes: readonly string[]): Buddy[] {
  if (topology.nodes.length === 1) return [];
  const others = mesh.axes.map(({ name }) => name).filter((name) => !axes.includes(name));
  const { nodes } = topology;
  const nodeOf = new Map(
    nodes.flatMap((ranks, node) => ranks.map((rank) => [rank, node] as const)),
  );
  // Of the ranks of all shard groups that hold the same part, the first has the buddy.
  return groupOf(mesh, axes, 0).flatMap((rank): Buddy[] => {
    const node = nodeOf.get(rank) as number;
    const isAlone = groupOf(mesh, others, rank).every((holder) => nodeOf.get(holder) === node);
    return isAlone ? [{ of: rank, at: buddyOf(topology, rank, node) }] : [];
  });
}

/** The ranks of a node have their buddies on the next node, as evenly as can be. */
function buddyOf({ nodes }: Topology, rank: number, node: number): number {
  const place = nodes[node]?.indexOf(rank) ?? 0;
  const next = nodes[(node + 1) % nodes.length] as readonly number[];
  return next[place % next.length] as number;
}
