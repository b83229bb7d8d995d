/** Replaces an operator by the nodes that it is composed of: see `BatchRule.reduces`. */
import { type BatchRule, type GraphBuilder, type Node, type Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import type { Kind, Pair, PartSum } from "./batch-kind.ts";
import { batchContext } from "./batch-mixing.ts";

export interface Rewritten {
  readonly result: "sum" | "mean" | Value | undefined;
  /** The nodes that were added. */
  readonly nodes: readonly Node[];
}

export function rewriteNode(
  builder: GraphBuilder,
  node: Node,
  inputs: readonly (Value | undefined)[],
  rule: Exclude<BatchRule["reduces"], string | undefined>,
): Rewritten {
  const first = builder.nodes.length;
  const context = batchContext(builder, node, inputs);
  const result = builder.within(`batch/${node.name}`, () => rule(context));
  return { result, nodes: builder.nodes.slice(first) };
}

/** The outputs of a node in both graphs, by their names in the first graph. */
export function outputPairs(
  [part, whole]: readonly [GraphBuilder, GraphBuilder],
  node: Node,
  other: Node | undefined,
): [string, Pair][] {
  return node.outputs.map((name, index) => {
    const own = other?.outputs[index] ?? "";
    return [name, { part: part.value(name), whole: whole.value(own) }];
  });
}

/** The sum in place of a mean, whose division would be rounded. */
export function exactMean(
  { factor, part }: PartSum,
  sumOf: string,
  node: Node,
  inputs: readonly (Value | undefined)[],
): Kind {
  const name = `${node.name}/sum`;
  const [total] = part.builder.append(sumOf, name, inputs, node.attributes, [name]);
  const count = elementCount(inputs[0]?.shape ?? []) / elementCount(part.shape);
  return { kind: "sum", factor: factor / count, part: total as Value };
}
