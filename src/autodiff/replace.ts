/**
 * Puts values that a gradient computed in place of the nodes that computed them in the forward
 * pass.
 */
import {
  type Graph,
  type GraphBuilder,
  type Node,
  removeUnused,
  type Value,
} from "../graph/index.ts";
import type { Replacements } from "./backward.ts";

/**
 * The finished graph in which each replaced value is its replacement. Its nodes are sorted again.
 */
export function buildReplaced(
  builder: GraphBuilder,
  outputs: readonly Value[],
  replaced: Replacements,
): Graph {
  if (replaced.size === 0) return builder.build(outputs);
  const graph = builder.build([...outputs, ...replaced.values()]);
  const nodes = graph.nodes.flatMap((node) => {
    if (!node.outputs.some((output) => replaced.has(output))) return [node];
    return node.outputs.flatMap((output): Node[] => {
      const value = replaced.get(output);
      if (value === undefined) return [];
      return [
        { op: "Identity", name: output, inputs: [value.name], outputs: [output], attributes: {} },
      ];
    });
  });
  const wanted = { ...graph, outputs: outputs.map((value) => value.name) };
  return removeUnused({ ...wanted, nodes: inOrder(nodes) });
}

/** Sorts nodes so that each follows those that it reads, and otherwise keeps their order. */
function inOrder(nodes: readonly Node[]): Node[] {
  const makers = new Map(
    nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
  );
  const placed = new Set<Node>();
  const ordered: Node[] = [];
  // A recursion over long chains of nodes would overflow the stack.
  const waiting = nodes.toReversed();
  while (waiting.length > 0) {
    const node = waiting.at(-1) as Node;
    const missing = placed.has(node)
      ? []
      : node.inputs.flatMap((name) => {
          const maker = name === "" ? undefined : makers.get(name);
          return maker === undefined || placed.has(maker) ? [] : [maker];
        });
    if (missing.length > 0) {
      waiting.push(...missing);
      continue;
    }
    waiting.pop();
    if (!placed.has(node)) ordered.push(node);
    placed.add(node);
  }
  return ordered;
}
