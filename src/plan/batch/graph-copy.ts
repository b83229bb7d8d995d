/** A graph that is copied into a builder node by node. */
import { type Graph, type GraphBuilder, type Node, typeOf, type Value } from "../../graph/index.ts";
import { builderLike } from "../../ops/index.ts";
import type { Tensor } from "../../tensor/index.ts";

export class GraphCopy {
  readonly builder: GraphBuilder;
  readonly graph: Graph;
  readonly #makers: ReadonlyMap<string, Node>;
  /** The copied values, by their names in the graph. */
  readonly #values = new Map<string, Value>();

  /** @param builder to which others add, too. Default: a new one, with the inputs of the graph */
  constructor(graph: Graph, builder?: GraphBuilder) {
    this.graph = graph;
    this.builder = builder ?? builderLike(graph);
    for (const name of builder === undefined ? graph.inputs : []) {
      this.#values.set(name, this.builder.input(name, typeOf(graph, name)));
    }
    this.#makers = new Map(
      graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
    );
  }

  get isEmpty(): boolean {
    return this.#values.size === 0;
  }

  /** A value that has been copied. */
  copied(name: string): Value | undefined {
    return this.#values.get(name);
  }

  makerOf(name: string): Node | undefined {
    return this.#makers.get(name);
  }

  /** A value of the graph, which is copied together with the nodes before it if it is not yet. */
  value(name: string): Value | undefined {
    if (name === "") return undefined;
    const known = this.#values.get(name);
    if (known !== undefined) return known;
    const constant = this.graph.constants.get(name);
    if (constant !== undefined) {
      const value = this.builder.namedConstant(name, constant);
      this.#values.set(name, value);
      return value;
    }
    const node = this.#makers.get(name);
    if (node === undefined) return undefined;
    const inputs = node.inputs.map((input) => this.value(input));
    this.add(node, inputs);
    return this.#values.get(name);
  }

  /** Adds a node of the graph, with these values as its inputs. */
  add(node: Node, inputs: readonly (Value | undefined)[]): Value[] {
    const { op, name, attributes, outputs } = node;
    const values = this.builder.append(op, name, inputs, attributes, outputs);
    for (const [index, output] of outputs.entries()) {
      if (output !== "") this.#values.set(output, values[index] as Value);
    }
    return values;
  }

  /** Adds a node beside those of others, which return the value of that name if they have it. */
  addBeside(node: Node, ofOthers: (name: string) => Value | undefined): Value[] {
    const inputs = node.inputs.map((name) => {
      const constant = this.graph.constants.get(name);
      const known = this.#values.get(name) ?? ofOthers(name);
      return known ?? (constant && this.builder.constant(constant));
    });
    return this.add(node, inputs);
  }

  /** Whether a value equals this constant; true as well if it is no constant here. */
  hasConstant(name: string, { bytes }: Tensor): boolean {
    const own = this.graph.constants.get(name)?.bytes;
    if (own === undefined) return true;
    // Weights often share memory: large ones are then not compared byte by byte.
    const isOne = own.buffer === bytes.buffer && own.byteOffset === bytes.byteOffset;
    return isOne || Buffer.compare(own, bytes) === 0;
  }

  /** Replaces a value of the graph by another one. */
  replace(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}
