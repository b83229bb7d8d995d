/** What an operator is made of, in place of it: see `BatchRule.reduces`. */
import {
  type BatchRule,
  type GraphBuilder,
  type Node,
  readAttributes,
  type Value,
} from "../graph/index.ts";
import { type OperatorName, operators } from "../ops/index.ts";

export interface Rewritten {
  readonly result: "sum" | "mean" | Value | undefined;
  /** Those that were added for it. */
  readonly nodes: readonly Node[];
}

export function rewriteNode(
  builder: GraphBuilder,
  node: Node,
  inputs: readonly (Value | undefined)[],
  rule: Exclude<BatchRule["reduces"], string | undefined>,
): Rewritten {
  const definition = operators[node.op as OperatorName];
  const attributes = readAttributes(definition, node.attributes, node.name);
  const first = builder.nodes.length;
  const input = (index: number) => inputs[index] as Value;
  const context = { builder, attributes, inputs, input };
  const result = builder.within(`batch/${node.name}`, () => rule(context));
  return { result, nodes: builder.nodes.slice(first) };
}
