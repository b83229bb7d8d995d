/**
 * Finds the values that correspond in two graphs of one model, built for two sizes of the batch.
 * For a batch of one sample, nodes that would not change a shape are often omitted; the other
 * graph's nodes are then skipped. Parts of the graphs may also differ in earnest, if another
 * computation is better for another size.
 */
import type { Graph, Node } from "../../graph/index.ts";
import { operatorTable } from "../../ops/index.ts";

/**
 * The names of the second graph by the names of the first, for outputs of nodes. Values beyond a
 * node without a counterpart are missing. The search starts from the outputs of both graphs, which
 * are in the same order.
 */
export function matchGraphs(part: Graph, whole: Graph): ReadonlyMap<string, string> {
  const [makers, others] = [makersOf(part), makersOf(whole)];
  const names = new Map<string, string>();
  const seen = new Set<string>();
  const open = part.outputs.map((name, index) => [name, whole.outputs[index] ?? ""] as const);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [name, other] = next;
    const key = `${name}\n${other}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const [node, twin] = [makers.get(name), others.get(other)];
    const isSame = node?.op === twin?.op && node?.inputs.length === twin?.inputs.length;
    if (isSame) {
      if (node === undefined || twin === undefined) continue;
      for (const [index, output] of node.outputs.entries()) {
        const found = twin.outputs[index];
        if (output !== "" && found !== undefined && !names.has(output)) names.set(output, found);
      }
      for (const [index, input] of node.inputs.entries()) {
        open.push([input, twin.inputs[index] as string]);
      }
      continue;
    }
    const passed = twin && passesOver(whole, twin);
    const own = node && passesOver(part, node);
    if (passed !== undefined) open.push([name, passed]);
    else if (own !== undefined) open.push([own, other]);
  }
  return names;
}

function makersOf({ nodes }: Graph): Map<string, Node> {
  return new Map(nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
}

/** The input of a node that only reshapes it. */
export function passesOver({ constants }: Graph, { op, inputs }: Node): string | undefined {
  const rule = operatorTable.find(op)?.batch;
  const [first, ...others] = inputs;
  const isAlone = others.every((name) => name === "" || constants.has(name));
  const isShape = rule?.linear === "first" || (rule?.linear === "together" && inputs.length === 1);
  return isShape && isAlone ? first : undefined;
}
