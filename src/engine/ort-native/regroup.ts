/**
 * Removes Reshapes. In the mode in which our sessions run (decision 4), ONNX Runtime copies the
 * tensor for each Reshape. So nodes for which only the last dims matter take their operands in the
 * dims that those already have, and a Reshape that leads back is removed. The elements, and the
 * order in which they are computed, do not change.
 */
import type { Graph, Node } from "../../graph/index.ts";
import {
  byteLength,
  type Shape,
  sameShape,
  type Tensor,
  type TensorType,
  tensorFrom,
} from "../../tensor/index.ts";
import { type Groupable, groupable, stripped } from "./grouping.ts";

export function regroup(graph: Graph): Graph {
  if (!graph.nodes.some(({ op }) => op === "Reshape")) return graph;
  const pass = new Regrouping(graph);
  for (const node of graph.nodes) pass.take(node);
  return pass.finish();
}

class Regrouping {
  readonly #graph: Graph;
  readonly #nodes: Node[] = [];
  readonly #types: Map<string, TensorType>;
  readonly #constants: Map<string, Tensor>;
  /**
   * For a value that is reshaped from another: the name of that base. A base is never a key of this
   * map.
   */
  readonly #bases = new Map<string, string>();
  /** The Reshapes that were emitted, by base and shape. */
  readonly #reshaped = new Map<string, string>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#types = new Map(graph.types);
    this.#constants = new Map(graph.constants);
  }

  take(node: Node): void {
    const [from = ""] = node.inputs;
    const [to = ""] = node.outputs;
    if (node.op === "Reshape" && !this.#isFixed(from)) {
      this.#defineView(to, this.#bases.get(from) ?? from);
      return;
    }
    const isResult = node.outputs.some((name) => this.#graph.outputs.includes(name));
    const rule = isResult ? undefined : groupable(this.#graph, node);
    const lead = rule && this.#cheapestLead(node, rule);
    if (rule === undefined || lead === undefined) {
      const inputs = node.inputs.map((name) => this.#as(name, this.#shape(name)));
      this.#nodes.push({ ...node, inputs });
    } else this.#emitGrouped(node, rule, lead);
  }

  finish(): Graph {
    return {
      ...this.#graph,
      nodes: this.#nodes,
      types: this.#types,
      constants: this.#constants,
    };
  }

  /**
   * An output may be written over an input, so an input is read in the dims that the graph says;
   * reshaping constants costs nothing.
   */
  #isFixed(name: string): boolean {
    return this.#graph.inputs.includes(name) || this.#constants.has(name);
  }

  #shape(name: string): Shape {
    return this.#types.get(name)?.shape ?? [];
  }

  #defineView(name: string, base: string): void {
    this.#bases.set(name, base);
    if (!this.#graph.outputs.includes(name)) return;
    this.#emitReshape(base, this.#shape(name), name);
  }

  /**
   * The leading dims for which the fewest bytes are copied; undefined if those are the node's own.
   * A constant keeps its dims, because the library would store it in both forms.
   */
  #cheapestLead(node: Node, { tail, grouped }: Groupable): Shape | undefined {
    const operands = node.inputs.filter((_, index) => grouped[index] === true);
    if (operands.some((name) => this.#constants.has(name))) return undefined;
    const own = withoutTail(this.#shape(operands[0] ?? ""), tail);
    let [best, least] = [own, this.#bytesCopied(operands, own, tail)];
    for (const name of operands) {
      const shape = this.#shape(this.#bases.get(name) ?? name);
      if (!sameShape(tailOf(shape, tail), tailOf(this.#shape(name), tail))) continue;
      const lead = withoutTail(shape, tail);
      const bytes = this.#bytesCopied(operands, lead, tail);
      if (bytes > least || (bytes === least && lead.length >= best.length)) continue;
      [best, least] = [lead, bytes];
    }
    return sameShape(best, own) ? undefined : best;
  }

  #bytesCopied(operands: readonly string[], lead: Shape, tail: number): number {
    let bytes = 0;
    for (const name of new Set(operands)) {
      const base = this.#bases.get(name) ?? name;
      const shape = [...lead, ...tailOf(this.#shape(name), tail)];
      const isThere =
        sameShape(this.#shape(base), shape) || this.#reshaped.has(viewKey(base, shape));
      if (!isThere) bytes += byteLength(this.#types.get(name) as TensorType);
    }
    return bytes;
  }

  #emitGrouped(node: Node, { tail, grouped, attributes }: Groupable, lead: Shape): void {
    const rank = lead.length + tail;
    const inputs = node.inputs.map((name, index) => {
      const shape = this.#shape(name);
      if (grouped[index] === true) return this.#as(name, [...lead, ...tailOf(shape, tail)]);
      return this.#as(name, shape.length > rank ? stripped(shape) : shape);
    });
    const outputs = node.outputs.map((name) => {
      if (name === "") return name;
      const { dtype, shape } = this.#types.get(name) as TensorType;
      const own = this.#fresh(`${name}/regrouped`);
      const kept = Math.max(0, shape.length - withoutTail(shape, tail).length);
      this.#types.set(own, { dtype, shape: [...lead, ...tailOf(shape, kept)] });
      return own;
    });
    this.#nodes.push({ ...node, inputs, outputs, attributes });
    for (const [index, own] of outputs.entries()) {
      if (own !== "") this.#defineView(node.outputs[index] as string, own);
    }
  }

  /**
   * The name of a value with these elements in `shape`; a Reshape is added if there is none yet.
   */
  #as(name: string, shape: Shape): string {
    const base = this.#bases.get(name) ?? name;
    if (name === "" || sameShape(this.#shape(base), shape)) return base;
    const known = this.#reshaped.get(viewKey(base, shape));
    if (known !== undefined) return known;
    const isFree = name !== base && sameShape(this.#shape(name), shape);
    return this.#emitReshape(base, shape, isFree ? name : this.#fresh(`${base}/reshaped`));
  }

  #emitReshape(base: string, shape: Shape, name: string): string {
    const sizes = this.#fresh(`${name}/shape`);
    const numbers = tensorFrom("int64", [shape.length], shape);
    this.#constants.set(sizes, numbers);
    this.#types.set(sizes, { dtype: "int64", shape: [shape.length] });
    this.#types.set(name, { dtype: (this.#types.get(base) as TensorType).dtype, shape });
    this.#nodes.push({
      op: "Reshape",
      name: this.#fresh(`${name}/Reshape`),
      inputs: [base, sizes],
      outputs: [name],
      attributes: {},
    });
    this.#reshaped.set(viewKey(base, shape), name);
    return name;
  }

  #fresh(wanted: string): string {
    let name = wanted;
    for (let count = 2; this.#types.has(name); count++) name = `${wanted}_${count}`;
    return name;
  }
}

function withoutTail(shape: Shape, tail: number): Shape {
  return shape.slice(0, Math.max(0, shape.length - tail));
}

function tailOf(shape: Shape, tail: number): Shape {
  return tail === 0 ? [] : shape.slice(-tail);
}

function viewKey(base: string, shape: Shape): string {
  return `${base} ${shape.join("x")}`;
}
