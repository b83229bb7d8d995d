/**
 * Computes nodes whose inputs are all known, as long as the results are small: shapes, masks,
 * positions.
 */
import {
  type Graph,
  type GraphBuilder,
  inferTypes,
  type OperatorDefinition,
  typeOf,
  type Value,
} from "../graph/index.ts";
import { newBuilder, operatorTable } from "../ops/index.ts";
import { evaluateSurely } from "../reference/index.ts";
import { elementCount, isFloat } from "../tensor/index.ts";
import type { ImportNode } from "./upgrade/index.ts";
import { SIZES } from "./vary.ts";

type Foldable = Pick<ImportNode, "op" | "name" | "inputs" | "attributes" | "outputs">;

// Larger results are left to the engine, which folds them when it compiles.
const MAX_FLOATS = 16_384;
const MAX_INTEGERS = 262_144;

/** A graph without the nodes whose results are known and small. Outputs keep their names. */
export function foldConstants(graph: Graph): Graph {
  const builder = newBuilder(graph.name);
  const values = new Map<string, Value>();
  const outputs = new Set(graph.outputs);
  for (const name of graph.inputs) values.set(name, builder.input(name, typeOf(graph, name)));
  for (const [name, tensor] of graph.constants) {
    values.set(name, builder.namedConstant(name, tensor));
  }
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => values.get(name));
    const definition = operatorTable.find(node.op);
    const folded =
      definition === undefined || node.outputs.some((output) => outputs.has(output))
        ? undefined
        : foldNode(builder, definition, { ...node, inputs });
    const results =
      folded ?? builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
    for (const [index, output] of node.outputs.entries()) {
      const value = results[index];
      if (output !== "" && value !== undefined) values.set(output, value);
    }
  }
  return builder.build(graph.outputs.map((name) => values.get(name) as Value));
}

/**
 * The node's outputs as constants, or undefined if it must stay. `batch` is the batch size of the
 * model that is built.
 */
export function foldNode(
  builder: GraphBuilder,
  definition: OperatorDefinition,
  node: Foldable,
  batch = 1,
): readonly Value[] | undefined {
  const constants = node.inputs.map((value) => value && builder.constantOf(value));
  if (node.inputs.length === 0 || definition.draws === true) return undefined;
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
    cost +=
      countAsCompared(elementCount(type.shape), batch) /
      (isFloat(type.dtype) ? MAX_FLOATS : MAX_INTEGERS);
  }
  if (cost > 1) return undefined;
  const results = evaluateSurely(node, constants, types);
  return results?.map((result) => builder.constant(result));
}

/**
 * The builds at the sizes that are compared must fold the same nodes, so what grows with the batch
 * is counted as in the first of them.
 */
function countAsCompared(count: number, batch: number): number {
  const isCompared = SIZES.some((size) => size === batch);
  return isCompared && count % batch === 0 ? (count / batch) * SIZES[0] : count;
}
