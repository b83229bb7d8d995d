/** Nodes of the graph of a part that have no counterpart in the graph of the whole batch. */
import type { Graph, GraphBuilder, Node, Value } from "../../graph/index.ts";

export class UnmatchedNodes {
  readonly #builder: GraphBuilder;
  readonly #graph: Graph;
  readonly #values = new Map<string, Value>();

  constructor(builder: GraphBuilder, graph: Graph) {
    this.#builder = builder;
    this.#graph = graph;
  }

  get isEmpty(): boolean {
    return this.#values.size === 0;
  }

  value(name: string): Value | undefined {
    return this.#values.get(name);
  }

  /** @param matched returns the value of that name if both graphs have it */
  add(node: Node, matched: (name: string) => Value | undefined): (Value | undefined)[] {
    const { op, name, attributes, outputs } = node;
    const inputs = node.inputs.map((input) => {
      const constant = this.#graph.constants.get(input);
      const known = this.#values.get(input) ?? matched(input);
      return known ?? (constant && this.#builder.constant(constant));
    });
    const values = this.#builder.append(op, name, inputs, attributes, outputs);
    for (const [index, output] of outputs.entries()) {
      if (output !== "") this.#values.set(output, values[index] as Value);
    }
    return values;
  }
}
