import { type Graph, GraphBuilder } from "../graph/index.ts";
import { operatorTable } from "./table.ts";

export { type OperatorName, operators, operatorTable } from "./table.ts";

/** A builder that knows every operator. */
export function newBuilder(name: string): GraphBuilder {
  return new GraphBuilder(name, operatorTable);
}

/** A builder that starts with all of `graph`. */
export function extendGraph(graph: Graph): GraphBuilder {
  return GraphBuilder.from(graph, operatorTable);
}
