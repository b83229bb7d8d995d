/** What operators compute, and the bytes that they read and write. */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { byteLength } from "../tensor/index.ts";
import { flopsOfNode } from "./flops.ts";
import { operatorTable } from "./table.ts";

export interface Work {
  readonly flops: number;
  readonly bytes: number;
}

const known = new WeakMap<Graph, readonly Work[]>();

/** By node of a graph, without those that neither compute nor move anything. */
export function workOf(graph: Graph): readonly Work[] {
  const before = known.get(graph);
  if (before !== undefined) return before;
  const work = graph.nodes.flatMap((node) => {
    const own = { flops: flopsOfNode(graph, node), bytes: bytesOfNode(graph, node) };
    return own.flops + own.bytes === 0 ? [] : [own];
  });
  known.set(graph, work);
  return work;
}

function bytesOfNode(graph: Graph, { op, inputs, outputs }: Node): number {
  const { moves = false, inPlace = false } = operatorTable.find(op) ?? {};
  // Another shape of the same bytes.
  if (moves && inPlace) return 0;
  const sizeOf = (names: readonly string[]) =>
    names.reduce((sum, name) => sum + (name === "" ? 0 : byteLength(typeOf(graph, name))), 0);
  // What is moved is read where it is taken from, and nothing beside it.
  return moves ? 2 * sizeOf(outputs) : sizeOf(inputs) + sizeOf(outputs);
}
