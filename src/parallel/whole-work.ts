/**
 * The work of a micro-batch that ranks do not share, although they divide the model: each computes
 * the whole of it, because what it reads cannot be cut evenly, or costs more to exchange.
 */
import type { Graph } from "../graph/index.ts";
import type { Mesh } from "../mesh/index.ts";
import { flopsOfNode } from "../ops/index.ts";
import { isPiece, type StepGraph } from "../plan/index.ts";

export interface WholeWork {
  /** The ranks that compute a micro-batch together. */
  readonly ranks: number;
  /** The part of the operations of a micro-batch that each of them computes whole, in [0, 1]. */
  readonly share: number;
  /** By the name of a layer, in which blocks have no number: its part of the same, the largest first. */
  readonly layers: ReadonlyMap<string, number>;
}

/** The axes along which ranks share the operations of a micro-batch. */
const DIVIDING = ["context", "expert", "tensor"];

/**
 * @param alone the step of one rank
 * @param step the same step as strategies have rewritten it
 */
export function wholeWork(alone: StepGraph, step: StepGraph, mesh: Mesh): WholeWork {
  const ranks = mesh.axes
    .filter(({ name }) => DIVIDING.includes(name))
    .reduce((product, { size }) => product * size, 1);
  const flops = flopsByNode(alone);
  const all = [...flops.values()].reduce((sum, own) => sum + own, 0);
  if (ranks === 1 || all === 0) return { ranks, share: 0, layers: new Map() };
  const own = new Map<string, number>();
  for (const [name, count] of flopsByNode(step)) {
    const of = originOf(name, flops);
    if (of !== undefined) own.set(of, (own.get(of) ?? 0) + count);
  }
  const layers = new Map<string, number>();
  for (const [name, whole] of flops) {
    // A rank has 1/ranks of what is shared, and all of what is not.
    const again = (ranks * (own.get(name) ?? 0) - whole) / (ranks - 1);
    const share = Math.min(whole, Math.max(0, again)) / all;
    if (share > 0) layers.set(layerOf(name), (layers.get(layerOf(name)) ?? 0) + share);
  }
  const sorted = [...layers].toSorted(([, a], [, b]) => b - a);
  const share = sorted.reduce((sum, [, part]) => sum + part, 0);
  return { ranks, share, layers: new Map(sorted) };
}

/** By the name of a node: the operations of it. */
function flopsByNode({ tasks, graphs }: StepGraph): Map<string, number> {
  const found = new Map<string, number>();
  for (const { graph: name } of tasks.filter(isPiece)) {
    const graph = graphs.get(name) as Graph;
    for (const node of graph.nodes) {
      const flops = flopsOfNode(graph, node);
      if (flops > 0) found.set(node.name, (found.get(node.name) ?? 0) + flops);
    }
  }
  return found;
}

/** What a rank computes in the place of a node has its name, with more behind it. */
function originOf(name: string, known: ReadonlyMap<string, number>): string | undefined {
  for (let origin = name; origin !== ""; origin = origin.slice(0, origin.lastIndexOf("/"))) {
    if (known.has(origin)) return origin;
    if (!origin.includes("/")) break;
  }
  return undefined;
}

/** `blocks.*.attention` for the node `gradient/blocks.3.attention/MatMul_2`. */
function layerOf(node: string): string {
  const path = node.replace(/^gradient\//, "").replace(/\/?[^/]*$/, "");
  return path.replaceAll(/(^|[./])\d+(?=[./]|$)/g, "$1*") || "the model itself";
}
