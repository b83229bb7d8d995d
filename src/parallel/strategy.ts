/**
 * A strategy rewrites the graph of one process into the graph of a rank: pure, printable, testable without any process.
 * Strategies compose: each sees what the one before it made. None opens a socket.
 */
import type { Graph } from "../graph/index.ts";
import { formatMesh, type Mesh } from "./mesh.ts";

export interface Strategy {
  readonly name: string;
  /** Outputs keep their places in the list; their names may change. */
  rewrite(graph: Graph, mesh: Mesh, rank: number): Graph;
}

export function applyStrategies(
  strategies: readonly Strategy[],
  graph: Graph,
  mesh: Mesh,
  rank: number,
): Graph {
  return strategies.reduce((current, strategy) => strategy.rewrite(current, mesh, rank), graph);
}

/** `data over data=4`, for plans. */
export function describeStrategies(strategies: readonly Strategy[], mesh: Mesh): string {
  return `${strategies.map(({ name }) => name).join(", ")} over ${formatMesh(mesh)}`;
}
