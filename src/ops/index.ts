import { type Graph, GraphBuilder } from "../graph/index.ts";
import { operatorTable } from "./table.ts";

export { shardAttributes } from "./collective/shared.ts";
export { addLocalNode, type DividedOver, divisionsOf, reasonOfNever } from "./divide.ts";
export { sectionedDim } from "./divisions.ts";
export { flopsOf, flopsOfNode, flopsOfNodes } from "./flops.ts";
export { remade, writtenAs } from "./remade.ts";
export { type OperatorName, operators, operatorTable } from "./table.ts";
export { type Work, workOf } from "./work.ts";

/** A builder with the table of all operators. */
export function newBuilder(name: string): GraphBuilder {
  return new GraphBuilder(name, operatorTable);
}

/**
 * A builder for a copy of `graph`: values that are added beside do not take the names of its own.
 */
export function builderLike({ name, inputs, constants, nodes }: Graph): GraphBuilder {
  const own = [...inputs, ...constants.keys(), ...nodes.flatMap(({ outputs }) => outputs)];
  return new GraphBuilder(name, operatorTable, new Set(own));
}

/** A builder that already contains all of `graph`. */
export function extendGraph(graph: Graph): GraphBuilder {
  return GraphBuilder.from(graph, operatorTable);
}
