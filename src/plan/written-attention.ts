/**
 * Finds attention as models and exporters write it out: a product of queries and keys, a scale, masks,
 * softmax along the keys, a product with the values.
 */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { elementCount, normalizeDim, type Shape, sameShape, toNumbers } from "../tensor/index.ts";
import { HIDDEN, HiddenKeys, type Mask } from "./hidden-keys.ts";

/** Attention that a graph computes. */
export interface Attention {
  /** The value that it makes. */
  readonly output: string;
  /** The dims of the scores before queries and keys. */
  readonly lead: Shape;
  readonly q: string;
  /** Keys, or keys with their last two dims swapped. */
  readonly k: string;
  readonly isTransposed: boolean;
  readonly v: string;
  readonly scale: number;
  readonly masks: readonly Mask[];
}

/** A range of the rows of a value. */
export interface Taken {
  readonly source: string;
  readonly start: number;
  readonly end: number;
}

interface Scores extends Pick<Attention, "scale" | "masks"> {
  readonly product: Node;
}

export class WrittenAttention {
  readonly hidden: HiddenKeys;
  /** What depends on the inputs that gradients are made for. */
  readonly trained: ReadonlySet<string>;
  readonly #graph: Graph;
  readonly #makers = new Map<string, Node>();
  readonly #readers = new Map<string, Node[]>();

  /** @param trained the inputs that gradients are made for */
  constructor(graph: Graph, trained: ReadonlySet<string>) {
    this.#graph = graph;
    const reached = new Set(trained);
    for (const node of graph.nodes) {
      const isReached = node.inputs.some((name) => reached.has(name));
      for (const name of node.outputs) {
        this.#makers.set(name, node);
        if (isReached) reached.add(name);
      }
      for (const name of new Set(node.inputs)) {
        this.#readers.set(name, [...(this.#readers.get(name) ?? []), node]);
      }
    }
    this.trained = reached;
    this.hidden = new HiddenKeys(graph, this.#makers);
  }

  /** The attention that a softmax is part of. */
  of(softmax: Node): Attention | undefined {
    const [input = ""] = softmax.inputs;
    const shape = this.#shapeOf(input);
    const axis = softmax.attributes["axis"]?.value ?? -1;
    if (shape.length < 3 || normalizeDim(Number(axis), shape.length) !== shape.length - 1) {
      return undefined;
    }
    const scores = this.#scores(input);
    const mixed = this.#mixed(softmax.outputs[0] as string);
    if (scores === undefined || mixed === undefined) return undefined;
    const [q = "", right = ""] = scores.product.inputs;
    const swap = this.#makers.get(right);
    const isSwap = swap !== undefined && swapsLast(swap);
    const lead = shape.slice(0, -2);
    const found: Attention = {
      output: mixed.outputs[0] as string,
      lead,
      q,
      k: isSwap ? (swap.inputs[0] as string) : right,
      isTransposed: !isSwap,
      v: mixed.inputs[1] as string,
      scale: scores.scale,
      masks: scores.masks,
    };
    const fits =
      this.#fits(found.q, lead, false) &&
      this.#fits(found.k, lead, true) &&
      this.#fits(found.v, lead, true) &&
      elementCount(this.#shapeOf(found.output)) / elementCount(lead) ===
        (shape.at(-2) as number) * (this.#shapeOf(found.v).at(-1) as number);
    return fits ? found : undefined;
  }

  /** Whether matrices have these leading dims, but for their form; or dims of 1, if they repeat. */
  #fits(name: string, lead: Shape, repeats: boolean): boolean {
    const own = this.#shapeOf(name).slice(0, -2);
    if (own.length > 0 && elementCount(own) === elementCount(lead)) return true;
    return (
      repeats &&
      own.length === lead.length &&
      own.every((size, dim) => size === lead[dim] || size === 1)
    );
  }

  #shapeOf(name: string): Shape {
    return typeOf(this.#graph, name).shape;
  }

  #isReadOnce(name: string): boolean {
    return this.#readers.get(name)?.length === 1 && !this.#graph.outputs.includes(name);
  }

  /** How scores are made of a product. */
  #scores(name: string): Scores | undefined {
    const node = this.#makers.get(name);
    if (node === undefined || !this.#isReadOnce(name)) return undefined;
    const [first = "", second = "", third = ""] = node.inputs;
    switch (node.op) {
      case "MatMul":
        return { product: node, scale: 1, masks: [] };
      case "Identity":
        return this.#scores(first);
      case "Reshape": {
        const found = keepsMatrices(this.#shapeOf(first), this.#shapeOf(name))
          ? this.#scores(first)
          : undefined;
        return found?.masks.length === 0 ? found : undefined;
      }
      case "Mul":
        return this.#scaled(first, second) ?? this.#scaled(second, first);
      case "Div":
        return this.#scaled(first, second, -1);
      case "Add":
        return this.#masked(name, first, second) ?? this.#masked(name, second, first);
      case "Where":
        return (
          this.#replaced(name, second, { condition: first, where: false, by: third }) ??
          this.#replaced(name, third, { condition: first, where: true, by: second })
        );
      default:
        return undefined;
    }
  }

  #scaled(scores: string, factor: string, power: 1 | -1 = 1): Scores | undefined {
    const number = this.hidden.numberOf(factor);
    if (number === undefined) return undefined;
    const found = this.#scores(scores);
    // A mask would be scaled, too.
    if (found === undefined || found.masks.length > 0) return undefined;
    return { ...found, scale: found.scale * number ** power };
  }

  #masked(sum: string, scores: string, mask: string): Scores | undefined {
    if (this.trained.has(mask) || !sameShape(this.#shapeOf(scores), this.#shapeOf(sum))) {
      return undefined;
    }
    const found = this.#scores(scores);
    return found && { ...found, masks: [...found.masks, { kind: "added", value: mask }] };
  }

  #replaced(
    result: string,
    scores: string,
    { condition, where, by }: { condition: string; where: boolean; by: string },
  ): Scores | undefined {
    const number = this.hidden.numberOf(by);
    if (number === undefined || number > HIDDEN) return undefined;
    if (!sameShape(this.#shapeOf(scores), this.#shapeOf(result))) return undefined;
    const found = this.#scores(scores);
    const mask: Mask = { kind: "replaced", condition, where, by: number };
    return found && { ...found, masks: [...found.masks, mask] };
  }

  /** The product of weights and values. */
  #mixed(weights: string): Node | undefined {
    const [reader] = this.#readers.get(weights) ?? [];
    if (reader === undefined || !this.#isReadOnce(weights) || reader.inputs[0] !== weights) {
      return undefined;
    }
    if (reader.op === "MatMul") return reader;
    const [made = ""] = reader.outputs;
    const isForm = reader.op === "Reshape" || reader.op === "Identity";
    const keeps = isForm && keepsMatrices(this.#shapeOf(weights), this.#shapeOf(made));
    return keeps ? this.#mixed(made) : undefined;
  }

  /** Of which rows of another value a value is made, but for its leading dims. */
  taken(value: string, axis: -1 | -2 = -2): Taken {
    const name = this.#unshaped(value);
    const shape = this.#shapeOf(name);
    const size = shape.at(axis) ?? 1;
    const node = this.#makers.get(name);
    const start = node?.op === "Slice" ? this.#sliceStart(node, shape.length + axis) : undefined;
    if (node === undefined || start === undefined) return { source: name, start: 0, end: size };
    return { source: this.#unshaped(node.inputs[0] as string), start, end: start + size };
  }

  /** A value before it got other leading dims. */
  #unshaped(name: string): string {
    const node = this.#makers.get(name);
    const [source = ""] = node?.inputs ?? [];
    const isForm =
      node?.op === "Reshape" && keepsMatrices(this.#shapeOf(source), this.#shapeOf(name));
    return isForm ? this.#unshaped(source) : name;
  }

  /** Where a slice begins that takes a range of this dim alone. */
  #sliceStart({ inputs, outputs }: Node, dim: number): number | undefined {
    const [from, to] = [inputs[0], outputs[0]].map((name) => this.#shapeOf(name as string));
    const isOther = from?.some((size, at) => at !== dim && size !== to?.[at]) ?? true;
    const [starts, , axes, steps] = inputs.slice(1).map((name) => this.hidden.constantOf(name));
    if (isOther || starts === undefined || starts.shape[0] !== 1) return undefined;
    const [axis = 0] = axes === undefined ? [] : toNumbers(axes);
    const [step = 1] = steps === undefined ? [] : toNumbers(steps);
    const [start = 0] = toNumbers(starts);
    const isOfDim = normalizeDim(axis, from?.length ?? 0) === dim;
    return isOfDim && step === 1 && start >= 0 ? start : undefined;
  }
}

/** Whether another shape of a value has the same matrices in its last two dims. */
function keepsMatrices(from: Shape, to: Shape): boolean {
  return sameShape(from.slice(-2), to.slice(-2));
}

function swapsLast({ op, attributes }: Node): boolean {
  const perm = attributes["perm"];
  if (op !== "Transpose" || perm?.kind !== "ints") return false;
  const rank = perm.value.length;
  const swapped = perm.value.map((_, dim) => dim);
  return sameShape(perm.value, [...swapped.slice(0, rank - 2), rank - 1, rank - 2]);
}
