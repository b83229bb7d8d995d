/** Computes nodes whose inputs are all known, as long as they are small: shapes, masks, positions. */
import {
  type GraphBuilder,
  inferTypes,
  type OperatorDefinition,
  type Value,
} from "../../graph/index.ts";
import { evaluateNode, fromTensor, toTensor } from "../../reference/index.ts";
import { elementCount, isFloat } from "../../tensor/index.ts";
import type { ImportNode } from "../upgrade/index.ts";

// Larger ones are left to the engine, which folds them when it compiles.
const MAX_FLOATS = 16_384;
const MAX_INTEGERS = 262_144;

/** The node's outputs as constants, or undefined if it must stay. */
export function foldNode(
  builder: GraphBuilder,
  definition: OperatorDefinition,
  node: ImportNode,
): readonly Value[] | undefined {
  const constants = node.inputs.map((value) => value && builder.constantOf(value));
  if (node.inputs.length === 0) return undefined;
  if (node.inputs.some((value, i) => value !== undefined && constants[i] === undefined)) {
    return undefined;
  }
  const types = inferTypes({
    definition,
    where: node.name,
    inputs: node.inputs.map((value) => value?.type),
    constants,
    attributes: node.attributes,
    outputCount: node.outputs.length,
  });
  let cost = 0;
  for (const type of [...types, ...constants.filter((tensor) => tensor !== undefined)]) {
    cost += elementCount(type.shape) / (isFloat(type.dtype) ? MAX_FLOATS : MAX_INTEGERS);
  }
  if (cost > 1) return undefined;
  const results = evaluateNode(
    node,
    constants.map((tensor) => tensor && fromTensor(tensor)),
    types,
  );
  return results.map((result) => builder.constant(toTensor(result)));
}
