/** Inlines nodes that hold graphs: the branch of an If with a known condition, and loops. */
import type { Value } from "../graph/index.ts";
import type { RawGraph } from "../onnx/index.ts";
import { toNumbers } from "../tensor/index.ts";
import { writeOut } from "./loops.ts";
import type { NodeImporter } from "./node-importer.ts";
import type { Scope } from "./scope.ts";
import type { ImportNode } from "./upgrade/index.ts";

/** The results of a node with subgraphs, whose nodes are added to the surrounding graph. */
export function inlineSubgraphs(
  importer: NodeImporter,
  node: ImportNode,
  graphs: ReadonlyMap<string, RawGraph>,
  scope: Scope,
): readonly (Value | undefined)[] {
  if (node.op === "If") return takenBranch(importer, node, graphs, scope);
  const body = graphs.get("body");
  if ((node.op === "Loop" || node.op === "Scan") && body !== undefined) {
    return writeOut(importer, { ...node, body }, scope);
  }
  return importer.fail(
    `the operator ${node.op} with a subgraph is not supported`,
    "If, Loop and Scan are supported; rewrite the model with one of them, or without.",
  );
}

function takenBranch(
  importer: NodeImporter,
  { inputs: [condition], name }: ImportNode,
  graphs: ReadonlyMap<string, RawGraph>,
  scope: Scope,
): readonly (Value | undefined)[] {
  const known = condition && importer.builder.constantOf(condition);
  if (known === undefined) {
    return importer.fail(
      "the condition of If is not known before the graph runs",
      "Fix the input that decides it (dims, shapes), or export the branch that is used.",
    );
  }
  const branch = graphs.get(toNumbers(known)[0] === 0 ? "else_branch" : "then_branch");
  if (branch === undefined) return importer.fail("If has no such branch");
  const inner = scope.branch(`${name}/`);
  importer.graph(branch, inner);
  return branch.output.map(
    (output) => inner.find(output.name) ?? importer.fail(`no node computes "${output.name}"`),
  );
}
