/** The graph of a whole batch, copied node by node as the nodes of a part find their own in it. */
import { type Graph, type GraphBuilder, type Node, typeOf, type Value } from "../../graph/index.ts";
import { newBuilder } from "../../ops/index.ts";
import type { Tensor } from "../../tensor/index.ts";

export class WholeGraph {
  readonly builder: GraphBuilder;
  readonly graph: Graph;
  readonly #makers: ReadonlyMap<string, Node>;
  /** By their names in the graph. */
  readonly #values = new Map<string, Value>();

  constructor(graph: Graph) {
    this.graph = graph;
    this.builder = newBuilder(graph.name);
    for (const name of graph.inputs) {
      this.#values.set(name, this.builder.input(name, typeOf(graph, name)));
    }
    this.#makers = new Map(
      graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
    );
  }

  makerOf(name: string): Node | undefined {
    return this.#makers.get(name);
  }

  /** A value of the graph, with the nodes before it that no part has. */
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

  /** A node of the graph over these values. */
  add(node: Node, inputs: readonly (Value | undefined)[]): Value[] {
    const { op, name, attributes, outputs } = node;
    const values = this.builder.append(op, name, inputs, attributes, outputs);
    for (const [index, output] of outputs.entries()) {
      if (output !== "") this.#values.set(output, values[index] as Value);
    }
    return values;
  }

  /** Whether a value is this constant; so too for what is no constant here. */
  hasConstant(name: string, { bytes }: Tensor): boolean {
    const own = this.graph.constants.get(name)?.bytes;
    if (own === undefined) return true;
    // Weights are often the same memory: large ones are then not compared.
    const isOne = own.buffer === bytes.buffer && own.byteOffset === bytes.byteOffset;
    return isOne || Buffer.compare(own, bytes) === 0;
  }

  /** Takes another value in place of one of the graph. */
  replace(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}
