/** Divides a pass among the ranks of an axis: what each of them runs, and how they hold its inputs. */
import { type Division, type Graph, hashGraph, type Node } from "../../graph/index.ts";
import { MEMORY_SPEED } from "../../plan/index.ts";
import { DEFAULT_FLOPS } from "../cost.ts";
import type { RankSpeed } from "./costs.ts";
import { type GraphDivision, localize } from "./localize.ts";
import { type SolveOptions, solve } from "./solve.ts";
import { Work } from "./work.ts";

/** What a rank is taken to do, where nothing was measured; an exchange was (docs/lab.md). */
export const SPEED: RankSpeed = {
  flopsPerSecond: DEFAULT_FLOPS,
  bytesPerSecond: MEMORY_SPEED,
  link: { latency: 8e-4, bytesPerSecond: 8e9 },
};

/** What the ranks of an axis run, and how they hold the inputs. */
export interface DividedPass {
  /** What is divided. It may be another graph of the same nodes, under other names. */
  readonly of: Graph;
  readonly graph: Graph;
  readonly division: GraphDivision;
  /** The part of the operations of the pass that ranks share, instead of each making all of them. */
  readonly shared: number;
}

/** By the pass and what it is divided over: ranks come and go, and plans are made again. */
const known = new Map<string, DividedPass>();
const MOST_KNOWN = 8;

/** @param ways of which the one that takes the least time is chosen; there is one at least */
export function dividePass(
  graph: Graph,
  speed: RankSpeed,
  ways: readonly SolveOptions[],
): DividedPass {
  const key = JSON.stringify([hashGraph(graph), speed, ways.map(textOf)]);
  const found = known.get(key);
  if (found !== undefined) return found;
  const work = new Work(graph, speed);
  const solutions = ways.map((own) => solve(work, own));
  const best = solutions.reduce((one, other) => (other.seconds < one.seconds ? other : one));
  const { division, shared } = best;
  const made = { of: graph, graph: localize(graph, division), division, shared };
  if (known.size >= MOST_KNOWN) known.delete(known.keys().next().value as string);
  known.set(key, made);
  return made;
}

/** How the nodes of a graph are divided: it may have been found for one with other names. */
export function divisionIn(graph: Graph, { of, division }: DividedPass): GraphDivision {
  const nodes = graph.nodes.map((node, at) => {
    return [node, division.nodes.get(of.nodes[at] as Node) as Division] as const;
  });
  return { ...division, nodes: new Map(nodes) };
}

function textOf({ inputs, outputs, divided, over, beam }: SolveOptions) {
  return [[...inputs], [...outputs], [...(divided ?? [])], over, beam];
}
