/**
 * Builds a graph node by node and infers every type. It is the only mutable form of a graph:
 * models, gradients, optimizers and rewrites are all written with it.
 */
import { assert, LockstepError } from "../errors.ts";
import {
  type DType,
  formatType,
  type Shape,
  scalar,
  type Tensor,
  type TensorType,
  tensorFrom,
} from "../tensor/index.ts";
import { type AttributeInputs, encodeAttributes } from "./attributes.ts";
import { type Attributes, type Graph, type Node, typeOf, validateGraph } from "./graph.ts";
import { inferTypes } from "./infer.ts";
import { reach } from "./reach.ts";
import type { OperatorSignature, SignatureTable } from "./signature.ts";

/** A handle to a value of a graph under construction. */
export interface Value {
  readonly name: string;
  readonly type: TensorType;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly builder: GraphBuilder;
}

/**
 * The range that a value must lie in, `low` and `high` included, if it comes directly from the
 * data: the data is checked for it.
 */
export interface Expectation {
  readonly value: string;
  readonly range: {
    readonly whole: boolean;
    readonly low: number;
    readonly high: number;
    readonly except: readonly number[];
  };
}

export interface EmitOptions {
  /** The number of outputs. Default: the least number that the operator allows. */
  readonly outputs?: number;
}

export class GraphBuilder {
  readonly name: string;
  readonly #operators: SignatureTable;
  readonly #inputs: string[] = [];
  readonly #nodes: Node[] = [];
  /** The index in `#nodes` of the node that makes a value. */
  readonly #makers = new Map<string, number>();
  readonly #constants = new Map<string, Tensor>();
  readonly #interned = new Map<string, Value>();
  readonly #values = new Map<string, Value>();
  readonly #expectations: Expectation[] = [];
  readonly #counters = new Map<string, number>();
  readonly #reserved: ReadonlySet<string>;
  #scope = "";

  /** @param reserved names that will be given later, so that no other value takes them */
  constructor(name: string, operators: SignatureTable, reserved: ReadonlySet<string> = new Set()) {
    this.name = name;
    this.#operators = operators;
    this.#reserved = reserved;
  }

  /** A builder that holds all of `graph` and can add to it. */
  static from(graph: Graph, operators: SignatureTable): GraphBuilder {
    const builder = new GraphBuilder(graph.name, operators);
    for (const name of graph.inputs) builder.input(name, typeOf(graph, name));
    for (const [name, tensor] of graph.constants) builder.namedConstant(name, tensor);
    for (const node of graph.nodes) {
      builder.#push(node);
      for (const output of node.outputs) {
        if (output !== "") builder.#define(output, typeOf(graph, output));
      }
    }
    return builder;
  }

  get inputs(): readonly string[] {
    return this.#inputs;
  }

  get nodes(): readonly Node[] {
    return this.#nodes;
  }

  /**
   * The path of the layer that is being built (`blocks.3.attention`): a prefix of names, and part
   * of error messages.
   */
  get scope(): string {
    return this.#scope;
  }

  /** Runs `body` with names under `scope` (an absolute path), and restores the previous scope. */
  within<T>(scope: string, body: () => T): T {
    const before = this.#scope;
    this.#scope = scope;
    try {
      return body();
    } finally {
      this.#scope = before;
    }
  }

  input(name: string, type: TensorType): Value {
    const value = this.#define(name, type);
    this.#inputs.push(name);
    return value;
  }

  /** Adds a constant with a name of its own, such as a weight that is not trained, or a table. */
  namedConstant(name: string, tensor: Tensor): Value {
    const value = this.#define(name, { dtype: tensor.dtype, shape: tensor.shape });
    this.#constants.set(name, tensor);
    return value;
  }

  /** Adds a constant; equal small constants are shared. */
  constant(tensor: Tensor): Value {
    if (tensor.bytes.byteLength > 1024) {
      return this.namedConstant(this.#fresh("constant"), tensor);
    }
    const key = `${formatType(tensor)}:${Buffer.from(tensor.bytes).toString("hex")}`;
    const known = this.#interned.get(key);
    if (known !== undefined) return known;
    const value = this.within("", () => this.namedConstant(this.#fresh("constant"), tensor));
    this.#interned.set(key, value);
    return value;
  }

  scalar(dtype: DType, number: number): Value {
    return this.constant(scalar(dtype, number));
  }

  /** Adds a constant list of int64, such as a shape, axes or starts. */
  ints(numbers: readonly number[]): Value {
    return this.constant(tensorFrom("int64", [numbers.length], numbers));
  }

  /**
   * States the range that `value` must lie in. The ranges of values that operators take as indices
   * are known without it.
   */
  expect(value: Value, low: number, high: number): void {
    const range = { whole: false, low, high, except: [] };
    this.#expectations.push({ value: value.name, range });
  }

  get expectations(): readonly Expectation[] {
    return this.#expectations;
  }

  constantOf(value: Value): Tensor | undefined {
    return this.#constants.get(value.name);
  }

  value(name: string): Value {
    const value = this.#values.get(name);
    assert(value !== undefined, `graph "${this.name}" has no value "${name}"`);
    return value;
  }

  /** The node that makes a value; undefined for inputs and constants. */
  makerOf(value: Value): Node | undefined {
    const at = this.#makers.get(value.name);
    return at === undefined ? undefined : this.#nodes[at];
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Adds a node and returns its first output. */
  one(op: string, inputs: readonly (Value | undefined)[], attributes: AttributeInputs = {}): Value {
    return this.emit(op, inputs, attributes)[0] as Value;
  }

  /**
   * Adds a node of `op`; types are checked and inferred. Throws UNKNOWN_OPERATOR, SHAPE_MISMATCH,
   * TYPE_MISMATCH.
   */
  emit(
    op: string,
    inputs: readonly (Value | undefined)[],
    attributes: AttributeInputs = {},
    options: EmitOptions = {},
  ): Value[] {
    const definition = this.#definition(op);
    const encoded = encodeAttributes(definition, attributes, this.#where());
    const outputs = Array.from({ length: options.outputs ?? definition.outputs[0] }, () => "*");
    return this.append(op, this.#fresh(shortName(op)), inputs, encoded, outputs);
  }

  /**
   * Adds a node with a given name and with attributes as they are stored in a graph. `outputs` are
   * the names of the outputs: `*` for a name derived from the node's name, the empty string for an
   * omitted output.
   */
  append(
    op: string,
    name: string,
    inputs: readonly (Value | undefined)[],
    attributes: Attributes,
    outputs: readonly string[],
  ): Value[] {
    const definition = this.#definition(op);
    for (const value of inputs) {
      assert(value === undefined || value.builder === this, `${op}: a value of another graph`);
    }
    const types = inferTypes({
      definition,
      where: this.#where(name),
      inputs: inputs.map((value) => value?.type),
      constants: inputs.map((value) => value && this.#constants.get(value.name)),
      attributes,
      outputCount: outputs.length,
    });
    const names = outputs.map((output, index) =>
      output === "*" ? (outputs.length === 1 ? name : `${name}.${index}`) : output,
    );
    this.#push({
      op,
      name,
      inputs: inputs.map((value) => value?.name ?? ""),
      outputs: names,
      attributes,
    });
    return names.map((output, index) => {
      const type = types[index];
      assert(type !== undefined, `${op} inferred ${types.length} of ${names.length} outputs`);
      return output === "" ? (undefined as unknown as Value) : this.#define(output, type);
    });
  }

  /**
   * Output `index` of a node that is already in the graph. If the node lacks this optional output,
   * it is added: a gradient rule gets in this way the mean and the deviation that a normalization
   * computes anyway.
   */
  outputOf(node: Node, index: number): Value {
    const at = this.#makers.get(node.outputs.find((name) => name !== "") ?? "") ?? -1;
    const present = this.#nodes[at];
    assert(present?.name === node.name, `graph "${this.name}" has no node "${node.name}"`);
    const known = present.outputs[index];
    if (known !== undefined && known !== "") return this.value(known);
    const inputs = present.inputs.map((name) => (name === "" ? undefined : this.value(name)));
    const type = inferTypes({
      definition: this.#definition(present.op),
      where: present.name,
      inputs: inputs.map((value) => value?.type),
      constants: inputs.map((value) => value && this.#constants.get(value.name)),
      attributes: present.attributes,
      outputCount: Math.max(index + 1, present.outputs.length),
    })[index];
    assert(type !== undefined, `${present.op} has no output ${index}`);
    const outputs = [...present.outputs];
    while (outputs.length <= index) outputs.push("");
    outputs[index] = `${present.name}.${index}`;
    this.#nodes[at] = { ...present, outputs };
    this.#makers.set(`${present.name}.${index}`, at);
    return this.#define(`${present.name}.${index}`, type);
  }

  /** The finished graph, validated. Nodes that no output needs are removed; inputs are kept. */
  build(outputs: readonly Value[]): Graph {
    const { nodes, values: needed } = reach(
      this.#nodes,
      outputs.map((value) => value.name),
    );
    const constants = new Map([...this.#constants].filter(([name]) => needed.has(name)));
    const types = new Map<string, TensorType>();
    for (const name of [...this.#inputs, ...constants.keys()])
      types.set(name, this.value(name).type);
    for (const node of nodes) {
      for (const output of node.outputs) {
        if (output !== "") types.set(output, this.value(output).type);
      }
    }
    return validateGraph({
      name: this.name,
      inputs: [...this.#inputs],
      outputs: outputs.map((value) => value.name),
      nodes,
      constants,
      types,
    });
  }

  #push(node: Node): void {
    for (const output of node.outputs) this.#makers.set(output, this.#nodes.length);
    this.#nodes.push(node);
  }

  #definition(op: string): OperatorSignature {
    const definition = this.#operators.find(op);
    if (definition === undefined) {
      throw new LockstepError("UNKNOWN_OPERATOR", `${this.#where()}: unknown operator "${op}".`);
    }
    return definition;
  }

  #where(name = this.name): string {
    return this.#scope === "" ? name : this.#scope;
  }

  #fresh(base: string): string {
    const prefix = this.#scope === "" ? base : `${this.#scope}/${base}`;
    for (;;) {
      const count = (this.#counters.get(prefix) ?? 0) + 1;
      this.#counters.set(prefix, count);
      const name = `${prefix}_${count}`;
      const isTaken = (own: string) => this.#values.has(own) || this.#reserved.has(own);
      if (!isTaken(name) && !isTaken(`${name}.0`)) return name;
    }
  }

  #define(name: string, type: TensorType): Value {
    if (this.#values.has(name)) {
      throw new LockstepError(
        "INVALID_GRAPH",
        `Graph "${this.name}" has two values named "${name}".`,
        { hint: "Give each layer and parameter a name of its own." },
      );
    }
    const value: Value = { name, type, shape: type.shape, dtype: type.dtype, builder: this };
    this.#values.set(name, value);
    return value;
  }
}

function shortName(op: string): string {
  return op.slice(op.lastIndexOf(":") + 1);
}
