/** Slices of what is read whole at several places, such as the keys up to a block of queries. */
import { type Graph, type Node, typeOf, validateGraph } from "../../graph/index.ts";
import { flopsOfNode } from "../../ops/index.ts";
import { toNumbers } from "../../tensor/index.ts";

interface Taken {
  readonly node: Node;
  readonly dim: number;
  readonly start: number;
  readonly end: number;
}

/** Slices of a value that overlap with others, and the dims of the matrices that they are taken of. */
export function overlappingSlices(graph: Graph): ReadonlyMap<Node, readonly number[]> {
  const bySource = new Map<string, Taken[]>();
  for (const node of graph.nodes) {
    const [source = "", starts = ""] = node.inputs;
    if (node.op !== "Slice") continue;
    const [from, to] = [source, node.outputs[0] as string].map((name) => typeOf(graph, name).shape);
    const dim = from?.findIndex((size, at) => size !== to?.[at]) ?? -1;
    const constant = graph.constants.get(starts);
    const [start] = constant === undefined ? [] : toNumbers(constant);
    if (dim < 0 || start === undefined) continue;
    const key = `${source} ${dim}`;
    const own = { node, dim, start, end: start + (to?.[dim] as number) };
    bySource.set(key, [...(bySource.get(key) ?? []), own]);
  }
  const overlapping = [...bySource.values()].filter((slices) =>
    slices.some(({ start, end }, at) =>
      slices.slice(at + 1).some((other) => other.start < end && start < other.end),
    ),
  );
  return new Map(
    overlapping.flat().map(({ node, dim }) => {
      const rank = typeOf(graph, node.inputs[0] as string).shape.length;
      return [node, [dim, rank - 2, rank - 1]];
    }),
  );
}

/**
 * Slices that overlap are taken again where the backward pass reads them, or another shape of them:
 * what is kept until then is the value itself, once.
 */
export function takenAgain(graph: Graph, forward: ReadonlySet<Node>): Graph {
  const made = new Map<string, Node>();
  const slices = overlappingSlices(graph);
  for (const node of graph.nodes) {
    const [read, ...others] = node.inputs.filter((name) => !graph.constants.has(name));
    const isShape = made.has(read ?? "") && others.length === 0 && flopsOfNode(graph, node) === 0;
    if (!forward.has(node) || !(slices.has(node) || isShape)) continue;
    for (const name of node.outputs) made.set(name, node);
  }
  const types = new Map(graph.types);
  const nodes = graph.nodes.flatMap((reader): Node[] => {
    if (forward.has(reader)) return [reader];
    const copies: Node[] = [];
    const names = new Map<string, string>();
    const again = (name: string): string => {
      const maker = made.get(name);
      const known = names.get(name);
      if (maker === undefined || known !== undefined) return known ?? name;
      const inputs = maker.inputs.map(again);
      const outputs = maker.outputs.map((own) => `${reader.name}/${own}`);
      for (const [index, own] of maker.outputs.entries()) {
        names.set(own, outputs[index] as string);
        types.set(outputs[index] as string, typeOf(graph, own));
      }
      copies.push({ ...maker, name: `${reader.name}/${maker.name}`, inputs, outputs });
      return names.get(name) as string;
    };
    const inputs = reader.inputs.map(again);
    return [...copies, copies.length === 0 ? reader : { ...reader, inputs }];
  });
  return validateGraph({ ...graph, nodes, types });
}
