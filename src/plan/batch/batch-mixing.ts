/**
 * Whether a node mixes samples although its result still has the dim of the batch, such as a
 * softmax along it, a reversal of its order, or rows picked by indices that may belong to other
 * samples.
 */
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
import { batchDim, picksOwnRows } from "./batch-picks.ts";

/** @param samples the numbers of samples of a part and of the whole */
export function mixesSamples(
  node: Node,
  inputs: readonly (Pair | undefined)[],
  samples: readonly [part: number, whole: number],
): boolean {
  const [first] = inputs;
  const { mixes, picks } = operatorTable.find(node.op)?.batch ?? {};
  if (first === undefined) return false;
  const batch = batchDim(first);
  const values = inputs.map((pair) => pair?.part);
  const context = batchContext(first.part.builder, node, values);
  if (batch < 0) return false;
  if (mixes?.(context).includes(batch) === true) return true;
  if (picks === undefined) return false;
  const { input, dims } = picks(context);
  const numbers = inputs[input];
  const component = typeof dims === "number" ? undefined : dims.indexOf(batch);
  const isOther = component === undefined ? dims !== batch : component < 0;
  if (numbers === undefined || isOther) return false;
  return !picksOwnRows({ numbers, component, from: first, dim: batch }, samples);
}

/** The context that is given to a node's rule for batches. */
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
