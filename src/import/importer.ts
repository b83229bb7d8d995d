/**
 * Converts the nodes of a file to nodes of a graph under construction, one after the other.
 * Functions and branches are inlined, old forms are upgraded, and known values are computed. The
 * error of an unsupported node concerns only those who need its outputs: a loss does not need the
 * boxes that a second output sorts.
 */
import { LockstepError } from "../errors.ts";
import { type GraphBuilder, type OperatorDefinition, type Value } from "../graph/index.ts";
import type { OnnxFile, RawAttribute, RawFunction, RawGraph, RawNode } from "../onnx/index.ts";
import { INTERNAL_OPSET, NEWEST_OPSET, OLDEST_OPSET } from "../onnx/index.ts";
import { operatorTable } from "../ops/index.ts";
import { type Tensor, toNumbers } from "../tensor/index.ts";
import { checkAttributes, ruleContext } from "./context.ts";
import { foldNode } from "./fold.ts";
import type { NodeImporter } from "./node-importer.ts";
import { domainOf, Scope } from "./scope.ts";
import { inlineSubgraphs } from "./subgraphs.ts";
import { type ImportNode, rulesFor } from "./upgrade/index.ts";

/** The functions that the importer calls for its caller. */
export interface ImportHooks {
  /** Names that values must not take. */
  readonly reserved?: readonly string[];
  /** The number of samples of the model that is built. */
  readonly batch?: number | undefined;
  /** Builds a node in place of the importer (training-mode normalization), or returns undefined. */
  node?(node: ImportNode): readonly (Value | undefined)[] | undefined;
}

/** Suggestions that work, the most likely first. */
const UNKNOWN_HINT =
  "Rewrite that layer in plain tensor operations before the export: a cell called in a Python loop, for instance, exports as " +
  "known operators. Or add a definition: src/ops has one file for each operator.";

const MAX_INLINED = 32;
const MAX_NODES = 2_000_000;

export class Importer implements NodeImporter {
  readonly builder: GraphBuilder;
  readonly file: OnnxFile;
  readonly #hooks: ImportHooks;
  readonly #functions: ReadonlyMap<string, RawFunction>;
  readonly #names = new Set<string>();
  readonly #reserved: ReadonlySet<string>;
  /** The elements of sequences. Sequences are values that are not in the graph. */
  readonly #sequences = new Map<Value, readonly Value[]>();
  #nodes = 0;
  /** Set if the file's own structure does not end: no further node is examined. */
  #isEndless = false;

  constructor(builder: GraphBuilder, file: OnnxFile, hooks: ImportHooks = {}) {
    this.builder = builder;
    this.file = file;
    this.#hooks = hooks;
    this.#reserved = new Set(hooks.reserved);
    this.#functions = new Map(
      file.model.functions.map((item) => [
        functionKey(item.domain, item.name, item.overload),
        item,
      ]),
    );
  }

  /** Imports all nodes of a graph or of a function's body. */
  nodes(nodes: readonly RawNode[], scope: Scope): void {
    for (const node of nodes) this.#node(node, scope);
  }

  #node(raw: RawNode, scope: Scope): void {
    const label = raw.name !== "" ? raw.name : (raw.output.find((name) => name !== "") ?? "");
    const name = this.fresh(scope.prefix + (label === "" ? raw.opType : label));
    try {
      if (++this.#nodes > MAX_NODES) this.#end(`more than ${MAX_NODES} nodes after inlining`);
      const values = this.#resolve(raw, name, scope);
      for (const [index, output] of raw.output.entries()) {
        const value = values[index];
        if (output === "" || value === undefined) continue;
        scope.define(output, value);
      }
    } catch (error) {
      const located = this.#located(error, raw, name);
      if (!(located instanceof LockstepError) || this.#isEndless) throw located;
      for (const output of raw.output) if (output !== "") scope.fail(output, located);
    }
  }

  #resolve(raw: RawNode, name: string, scope: Scope): readonly (Value | undefined)[] {
    const domain = domainOf(raw.domain);
    const inputs = raw.input.map((input) => {
      if (input === "") return undefined;
      return scope.find(input) ?? this.fail(`reads "${input}", which no node before it computes`);
    });
    const body = this.#functions.get(functionKey(raw.domain, raw.opType, raw.overload));
    if (body !== undefined) return this.#call(body, raw, inputs, name, scope);
    const { attributes, graphs } = scope.attributes(raw.attribute, name);
    const op = domain === "" ? raw.opType : `${domain}::${raw.opType}`;
    const node: ImportNode = {
      op,
      name,
      inputs,
      attributes,
      outputs: raw.output.map((output) => (output === "" ? "" : scope.prefix + output)),
      opset: domain === "" ? (scope.opset("") ?? INTERNAL_OPSET) : INTERNAL_OPSET,
    };
    if (graphs.size === 0) return this.build(node);
    this.#checkDepth(scope);
    return inlineSubgraphs(this, node, graphs, scope);
  }

  /** Builds one node: by rules, then by folding, then in the graph. */
  build(given: ImportNode): readonly (Value | undefined)[] {
    let node = given;
    for (const { below, unlessDefined, rule } of rulesFor(node.op)) {
      if (below !== undefined && node.opset >= below) continue;
      if (unlessDefined === true && this.#definition(node.op) !== undefined) continue;
      const result = rule(ruleContext(this, node));
      if (result === undefined) continue;
      if (!("op" in result)) return result;
      if (result.op !== node.op) return this.build(result);
      node = result;
    }
    return this.#hooks.node?.(node) ?? this.add(node);
  }

  /** Adds a node in its newest form, or its result if that is known. */
  add(node: ImportNode): readonly (Value | undefined)[] {
    const definition = this.#definition(node.op);
    if (definition === undefined) {
      throw new LockstepError("UNKNOWN_OPERATOR", `the operator "${node.op}" is not known`, {
        hint: UNKNOWN_HINT,
      });
    }
    for (const [index, value] of node.inputs.entries()) {
      if (value !== undefined) this.tensor(value, `input ${index}`);
    }
    const ready = { ...node, attributes: checkAttributes(this, node, definition) };
    const folded = foldNode(this.builder, definition, ready, this.#hooks.batch);
    if (folded !== undefined) return folded;
    const outputs = ready.outputs.map((output) =>
      output === "" || this.#free(output) ? output : this.fresh(output),
    );
    return this.builder.append(ready.op, ready.name, ready.inputs, ready.attributes, outputs);
  }

  #definition(op: string): OperatorDefinition | undefined {
    return operatorTable.find(op);
  }

  /** Adds a graph's initializers as constants, then its nodes. */
  graph(graph: RawGraph, scope: Scope): void {
    for (const raw of graph.initializer) {
      if (scope.find(raw.name) !== undefined && scope.prefix === "") continue;
      scope.define(raw.name, this.weight(scope.prefix + raw.name, scope.file.tensor(raw)));
    }
    if (graph.sparseInitializer.length > 0) {
      this.fail("sparse weights are not supported", "Export the model with dense weights.");
    }
    this.nodes(graph.node, scope);
  }

  /** Adds a weight that is not trained. */
  weight(name: string, tensor: Tensor): Value {
    return this.builder.namedConstant(this.#free(name) ? name : this.fresh(name), tensor);
  }

  #call(
    body: RawFunction,
    raw: RawNode,
    inputs: readonly (Value | undefined)[],
    name: string,
    outer: Scope,
  ): readonly (Value | undefined)[] {
    this.#checkDepth(outer);
    const bindings = new Map<string, RawAttribute>();
    for (const attribute of body.attributeProto) bindings.set(attribute.name, attribute);
    for (const attribute of raw.attribute) {
      const bound = outer.bound(attribute);
      if (bound !== undefined) bindings.set(attribute.name, { ...bound, name: attribute.name });
    }
    const scope = new Scope({
      file: this.file,
      opsets: body.opsetImport.length > 0 ? body.opsetImport : this.file.model.opsetImport,
      prefix: `${name}/`,
      depth: outer.depth + 1,
      bindings,
    });
    for (const [index, parameter] of body.input.entries()) {
      const value = inputs[index];
      if (value !== undefined) scope.define(parameter, value);
    }
    this.nodes(withoutAbsent(body, inputs), scope);
    return body.output.map((output) => scope.find(output));
  }

  /** A name that no value has yet. */
  fresh(name: string): string {
    let fresh = name;
    for (let count = 1; this.#names.has(fresh) || !this.#free(fresh); count++) {
      fresh = `${name}_${count}`;
    }
    this.#names.add(fresh);
    return fresh;
  }

  #free(name: string): boolean {
    return !this.builder.has(name) && !this.#reserved.has(name);
  }

  sequence(values: readonly Value[]): Value {
    const type = { dtype: values[0]?.dtype ?? "float32", shape: [] } as const;
    const value: Value = { name: this.fresh("sequence"), type, ...type, builder: this.builder };
    this.#sequences.set(value, values);
    return value;
  }

  elements(sequence: Value): readonly Value[] {
    return this.#sequences.get(sequence) ?? this.fail("an input is not a sequence of tensors");
  }

  /** Throws for a sequence. */
  tensor(value: Value, what: string): Value {
    if (!this.#sequences.has(value)) return value;
    return this.fail(
      `${what} is a sequence of tensors`,
      "Sequences are supported if their length and the positions that are read are known before the graph runs.",
    );
  }

  /** The elements of a known value. */
  numbers(value: Value): number[] {
    const tensor = this.builder.constantOf(value);
    return tensor === undefined
      ? this.fail("a setting is not known before the graph runs")
      : toNumbers(tensor);
  }

  /** Throws ONNX_UNSUPPORTED; the callers add the node and the file to the error. */
  fail(what: string, hint?: string): never {
    throw new LockstepError("ONNX_UNSUPPORTED", what, hint === undefined ? {} : { hint });
  }

  #checkDepth({ depth }: Scope): void {
    if (depth >= MAX_INLINED)
      this.#end("functions call each other without end, or subgraphs are nested too deep");
  }

  #end(what: string): never {
    this.#isEndless = true;
    return this.fail(what);
  }

  /** Adds the file, the node and its operator to an error, unless an inner node has done so. */
  #located(error: unknown, raw: RawNode, name: string): unknown {
    if (!(error instanceof LockstepError) || error.fields["file"] !== undefined) return error;
    const [text = ""] = error.message.split("\n  ");
    const sentence = text.endsWith(".") ? text : `${text}.`;
    return new LockstepError(
      error.code,
      `${this.file.name}: node "${name}" (${raw.opType}): ${sentence}`,
      {
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        fields: { ...error.fields, file: this.file.name, node: name, operator: raw.opType },
        cause: error,
      },
    );
  }
}

/** The body of a function in which the inputs that its caller omitted have the empty name. */
function withoutAbsent(
  body: RawFunction,
  inputs: readonly (Value | undefined)[],
): readonly RawNode[] {
  const absent = new Set(body.input.filter((_, index) => inputs[index] === undefined));
  if (absent.size === 0) return body.node;
  return body.node.map((node) => ({
    ...node,
    input: node.input.map((input) => (absent.has(input) ? "" : input)),
  }));
}

function functionKey(domain: string, name: string, overload: string): string {
  return `${domainOf(domain)}::${name}::${overload}`;
}

/** Refuses models whose operators are newer than those that are supported. */
export function checkOpset(file: OnnxFile): void {
  const version =
    file.model.opsetImport.find(({ domain }) => domainOf(domain) === "")?.version ?? INTERNAL_OPSET;
  if (version >= OLDEST_OPSET && version <= NEWEST_OPSET) return;
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `${file.name} uses operator set ${version}; ${OLDEST_OPSET} to ${NEWEST_OPSET} are supported.`,
    {
      hint: "Export the model again, for instance with opset_version=17.",
      fields: { file: file.name },
    },
  );
}
