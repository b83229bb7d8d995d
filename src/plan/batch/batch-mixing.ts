/** Whether a node mixes samples though its result still has the dim of the batch: a softmax along it, an order turned around. */
import {
  type BatchContext,
  type GraphBuilder,
  type Node,
  readAttributes,
  type Value,
} from "../../graph/index.ts";
import { type OperatorName, operators, operatorTable } from "../../ops/index.ts";
import { toNumbers } from "../../tensor/index.ts";
import type { Pair } from "./batch-kind.ts";

export function mixesSamples(node: Node, inputs: readonly (Pair | undefined)[]): boolean {
  const [first] = inputs;
  const mixes = operatorTable.find(node.op)?.batch?.mixes;
  if (first === undefined || mixes === undefined) return false;
  const batch = first.part.shape.findIndex((size, dim) => size !== first.whole.shape[dim]);
  const values = inputs.map((pair) => pair?.part);
  return batch >= 0 && mixes(batchContext(first.part.builder, node, values)).includes(batch);
}

/** What the rules of a node for batches are given. */
export function batchContext(
  builder: GraphBuilder,
  node: Node,
  inputs: readonly (Value | undefined)[],
): BatchContext {
  const definition = operators[node.op as OperatorName];
  return {
    builder,
    attributes: readAttributes(definition, node.attributes, node.name),
    inputs,
    input: (index) => inputs[index] as Value,
    constantNumbers(index) {
      const value = inputs[index];
      const constant = value && builder.constantOf(value);
      return constant === undefined ? [] : toNumbers(constant);
    },
  };
}
