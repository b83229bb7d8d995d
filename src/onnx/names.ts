/**
 * Checks that each name of a file stands for one value, as ONNX demands of graphs and functions
 * (static single assignment): otherwise a reader cannot tell which of two values a node means.
 */
import type { RawGraph, RawModel, RawNode } from "./schema.ts";

/** The first name that two values of the model have; undefined if there is none. */
export function nameOfTwo({ graph, functions }: RawModel): string | undefined {
  const own = graph === undefined ? undefined : ofGraph(graph);
  if (own !== undefined) return own;
  for (const { input, node } of functions) {
    const found = ofNodes(new Set(), input) ?? ofNodes(new Set(input), [], node);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A branch or the body of a loop is a graph with names of its own. */
function ofGraph({ input, initializer, node }: RawGraph): string | undefined {
  // Old files list weights among the inputs too: that is one value.
  const inputs = input.map(({ name }) => name);
  const weights = initializer.map(({ name }) => name);
  const twice = ofNodes(new Set(), inputs) ?? ofNodes(new Set(), weights);
  return twice ?? ofNodes(new Set([...inputs, ...weights]), [], node);
}

function ofNodes(
  known: Set<string>,
  names: readonly string[],
  nodes: readonly RawNode[] = [],
): string | undefined {
  const isTaken = (name: string): boolean => {
    // An empty name stands for an output that is left out.
    if (name === "") return false;
    if (known.has(name)) return true;
    known.add(name);
    return false;
  };
  for (const name of names) if (isTaken(name)) return name;
  for (const { output, attribute } of nodes) {
    for (const name of output) if (isTaken(name)) return name;
    for (const { g, graphs } of attribute) {
      for (const inner of g === undefined ? graphs : [g, ...graphs]) {
        const found = ofGraph(inner);
        if (found !== undefined) return found;
      }
    }
  }
  return undefined;
}
