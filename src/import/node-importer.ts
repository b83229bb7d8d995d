/**
 * What import rules, branches and loops use of the importer. The importer calls them, so they know
 * this interface and not its file.
 */
import type { GraphBuilder, Value } from "../graph/index.ts";
import type { RawGraph, RawNode } from "../onnx/index.ts";
import type { Scope } from "./scope.ts";
import type { ImportNode } from "./upgrade/index.ts";

export interface NodeImporter {
  readonly builder: GraphBuilder;
  /** Builds one node: by rules, then by folding, then in the graph. */
  build(node: ImportNode): readonly (Value | undefined)[];
  /** Imports all nodes of a graph or of a function's body. */
  nodes(nodes: readonly RawNode[], scope: Scope): void;
  /** Adds a graph's initializers as constants, then its nodes. */
  graph(graph: RawGraph, scope: Scope): void;
  /** A name that no value has yet. */
  fresh(name: string): string;
  sequence(values: readonly Value[]): Value;
  elements(sequence: Value): readonly Value[];
  /** Throws for a sequence. */
  tensor(value: Value, what: string): Value;
  /** Throws ONNX_UNSUPPORTED; the callers add the node and the file to the error. */
  fail(what: string, hint?: string): never;
}
