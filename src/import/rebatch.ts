/**
 * Rebuilds a file of one batch size, which exporters write by default, at another size. The file's
 * graph is built unchanged; then its nodes are built again, with inputs of the other size. The
 * place of the batch is known for each value: one of its dims has the size `outer · batch · inner`.
 * Types are inferred at both sizes, so operators need no rules of their own here, except those
 * whose shapes are constants. If that does not work, the file is refused at other sizes, and its
 * batch stays fixed.
 */
import type { Graph, GraphBuilder, Node, Value } from "../graph/index.ts";
import { typeOf } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { isFloat } from "../tensor/index.ts";
import { Maker, type Rebatching } from "./remake.ts";

// The sizes at which choices are made: primes, so that no size of the model is a multiple of them.
const PROBES = [23, 29];

/**
 * Plans how to build the graph for sizes other than `from`, that of its inputs.
 * @param inputs the inputs whose first dim is the batch
 * @throws ONNX_UNSUPPORTED with the first node that prevents it
 */
export function planRebatch(graph: Graph, from: number, inputs: ReadonlySet<string>): Rebatching {
  const plan: Rebatching = {
    graph,
    from,
    choices: { repeats: new Map(), rows: new Map(), places: new Map() },
  };
  const probe = PROBES.find((size) => size !== from) as number;
  for (let tries = 0; ; tries++) {
    const builder = newBuilder(graph.name);
    const values = new Map(
      graph.inputs.map((name) => {
        const { dtype, shape } = typeOf(graph, name);
        const own = inputs.has(name) ? [probe, ...shape.slice(1)] : shape;
        return [name, builder.input(name, { dtype, shape: own })] as const;
      }),
    );
    const maker = new Maker(plan, builder, probe, values, inputs);
    const failed = maker.run();
    if (failed === undefined) return plan;
    if (tries >= 2 * graph.nodes.length || !new Chooser(maker).decide(failed.node))
      throw failed.reason;
  }
}

/**
 * Builds all nodes of the plan in `builder` at the size `to`. `values` are those of the graph's
 * inputs; the result has all values by name.
 */
export function rebatch(
  plan: Rebatching,
  builder: GraphBuilder,
  to: number,
  values: ReadonlyMap<string, Value>,
  options: { inputs: ReadonlySet<string>; node?: (node: Node, x: Value) => Value | undefined },
): ReadonlyMap<string, Value> {
  const maker = new Maker(plan, builder, to, values, options.inputs, options.node);
  const failed = maker.run();
  if (failed !== undefined) throw failed.reason;
  return maker.values;
}

/** Finds a change that allows a node to be built that could not be. */
class Chooser {
  readonly #maker: Maker;

  constructor(maker: Maker) {
    this.#maker = maker;
  }

  /** Finds a choice with which the node can be built; false if there is none. */
  decide(node: Node): boolean {
    for (const [index, name] of node.inputs.entries()) {
      if (name === "" || this.#maker.places.has(name)) continue;
      if (this.#repeatIn(name) || this.#addRows(node, index)) return true;
    }
    return this.#otherPlace(node);
  }

  /**
   * Takes the next possible place of the batch in the nearest Reshape before the node that leaves a
   * choice.
   */
  #otherPlace(node: Node): boolean {
    const seen = new Set<Node>();
    const queue = [node];
    for (let own = queue.shift(); own !== undefined; own = queue.shift()) {
      const next = (this.#maker.plan.choices.places.get(own.name) ?? 0) + 1;
      if (next < (this.#maker.possible.get(own.name) ?? 1)) {
        this.#maker.plan.choices.places.set(own.name, next);
        return true;
      }
      for (const name of own.inputs) {
        const maker = this.#maker.makers.get(name);
        if (maker === undefined || seen.has(maker) || !this.#maker.places.has(name)) continue;
        seen.add(maker);
        queue.push(maker);
      }
    }
    return false;
  }

  /**
   * Finds, among the nodes that make a value, one that repeats along the batch a value that is the
   * same for all samples.
   */
  #repeatIn(name: string): boolean {
    const node = this.#maker.makers.get(name);
    if (node === undefined || this.#maker.places.has(name)) return false;
    return (
      this.#isExpand(node) ||
      node.inputs.some((input) => input !== "" && this.#repeatIn(input)) ||
      node.inputs.some((_, index) => this.#maker.plan.from > 1 && this.#addRows(node, index))
    );
  }

  #isExpand(node: Node): boolean {
    const { choices, from } = this.#maker.plan;
    if (node.op !== "Expand" || from === 1 || choices.repeats.has(node.name)) return false;
    const { shape } = this.#maker.typeOf(node.outputs[0] as string);
    const own = this.#maker.typeOf(node.inputs[0] as string).shape;
    const lead = shape.length - own.length;
    const dim = shape.findIndex((size, at) => size === from && (own[at - lead] ?? 1) === 1);
    if (dim >= 0) choices.repeats.set(node.name, dim);
    return dim >= 0;
  }

  /** Gives an input of a node as many rows as there are samples, if the node can then be built. */
  #addRows(node: Node, index: number): boolean {
    const { choices, from } = this.#maker.plan;
    const name = node.inputs[index] as string;
    if (name === "" || this.#maker.places.has(name) || !this.#canHaveRows(name)) return false;
    const known = choices.rows.get(node.name) ?? new Map<number, number>();
    if (known.has(index)) return false;
    for (const [dim, size] of this.#maker.typeOf(name).shape.entries()) {
      const rows = new Map([...known, [index, dim] as const]);
      if (size !== from || !this.#maker.isMade(node, rows)) continue;
      choices.rows.set(node.name, rows);
      return true;
    }
    return false;
  }

  /**
   * With a batch of one sample, nothing distinguishes the index of a sample from any other zero.
   */
  #canHaveRows(name: string): boolean {
    const isConstant = this.#maker.plan.graph.constants.has(name);
    if (this.#maker.plan.from === 1) return isFloat(this.#maker.typeOf(name).dtype);
    return isConstant;
  }
}
