/** Which keys a mask of constants hides from queries: whether it is a causal one. */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { evaluateSurely } from "../reference/index.ts";
import { elementCount, type Shape, type Tensor, toNumbers } from "../tensor/index.ts";

/** What changes scores so that keys do not count. */
export type Mask =
  /** A value that is added. */
  | { readonly kind: "added"; readonly value: string }
  /** Scores where a condition is (or is not) true become a number. */
  | {
      readonly kind: "replaced";
      readonly condition: string;
      readonly where: boolean;
      readonly by: number;
    };

/** A score this far below all others does not count. */
export const HIDDEN = -1e4;

/** The largest constants that are computed to look at them. */
const MOST_ELEMENTS = 2 ** 22;

/** The scores of these queries, and of the keys from the first one on. */
export interface Rows {
  readonly start: number;
  readonly count: number;
  readonly keys: number;
}

export class HiddenKeys {
  readonly #graph: Graph;
  readonly #makers: ReadonlyMap<string, Node>;
  readonly #known = new Map<string, Tensor | undefined>();

  constructor(graph: Graph, makers: ReadonlyMap<string, Node>) {
    this.#graph = graph;
    this.#makers = makers;
  }

  /** The value of what is made of constants alone, if it is not too large to look at. */
  constantOf(name: string): Tensor | undefined {
    const constant = this.#graph.constants.get(name);
    if (constant !== undefined) return constant;
    if (!this.#known.has(name)) this.#known.set(name, this.#computed(name));
    return this.#known.get(name);
  }

  #computed(name: string): Tensor | undefined {
    const node = this.#makers.get(name);
    if (node === undefined || elementCount(typeOf(this.#graph, name).shape) > MOST_ELEMENTS) {
      return undefined;
    }
    const inputs = node.inputs.map((own) => (own === "" ? undefined : this.constantOf(own)));
    if (node.inputs.some((own, at) => own !== "" && inputs[at] === undefined)) return undefined;
    const types = node.outputs.map((own) => typeOf(this.#graph, own));
    return evaluateSurely(node, inputs, types)?.[node.outputs.indexOf(name)];
  }

  /** The number that a constant has everywhere. */
  numberOf(name: string): number | undefined {
    const constant = this.#graph.constants.get(name);
    if (constant === undefined || elementCount(constant.shape) !== 1) return undefined;
    return toNumbers(constant)[0];
  }

  /** Whether a mask hides from each query the keys behind it, and none before it. */
  isCausal(mask: Mask, rows: Rows): boolean {
    if (mask.kind === "replaced") {
      return mask.by <= HIDDEN && this.#isOpen(mask.condition, !mask.where, rows);
    }
    const node = this.#makers.get(this.#unshaped(mask.value));
    if (node?.op === "Where") {
      const [condition = "", yes = "", no = ""] = node.inputs;
      const [first, second] = [this.numberOf(yes), this.numberOf(no)];
      if (first === undefined || second === undefined) return false;
      if (first === 0 && second <= HIDDEN) return this.#isOpen(condition, true, rows);
      return second === 0 && first <= HIDDEN && this.#isOpen(condition, false, rows);
    }
    const hides = (score: number) => {
      if (score === 0) return false;
      return score <= HIDDEN ? true : undefined;
    };
    return this.#isLike(mask.value, rows, hides);
  }

  /** Whether a condition has this value for the keys up to a query, and the other one behind it. */
  #isOpen(condition: string, value: boolean, rows: Rows): boolean {
    const node = this.#makers.get(condition);
    // Positions are compared: to look at these is enough, whatever the mask takes.
    if (value && node?.op === "GreaterOrEqual") {
      const [queries, keys] = node.inputs.map((name) => this.constantOf(name));
      if (queries !== undefined && keys !== undefined) return areInOrder(queries, keys, rows);
    }
    return this.#isLike(condition, rows, (number) => (number !== 0) !== value);
  }

  #isLike(name: string, rows: Rows, hides: (number: number) => boolean | undefined): boolean {
    const constant = this.constantOf(name);
    if (constant === undefined || !isMatrix(constant.shape, rows)) return false;
    return toNumbers(constant).every((number, at) => {
      const query = Math.floor(at / rows.keys);
      return hides(number) === at % rows.keys > rows.start + query;
    });
  }

  /** What a value is but for dims of one element. */
  #unshaped(name: string): string {
    const node = this.#makers.get(name);
    const isShape = node !== undefined && ["Reshape", "Unsqueeze", "Identity"].includes(node.op);
    return isShape ? this.#unshaped(node.inputs[0] as string) : name;
  }
}

function isMatrix(shape: Shape, { count, keys }: Rows): boolean {
  return (
    shape.at(-2) === count &&
    shape.at(-1) === keys &&
    shape.slice(0, -2).every((size) => size === 1)
  );
}

/** Whether the positions of queries and keys follow each other, so that a query is at its place. */
function areInOrder(queries: Tensor, keys: Tensor, { start, count, keys: all }: Rows): boolean {
  const [own, others] = [toNumbers(queries), toNumbers(keys)];
  const isColumn = queries.shape.at(-2) === count && queries.shape.at(-1) === 1;
  const isRow = keys.shape.at(-1) === all && (keys.shape.at(-2) ?? 1) === 1;
  if (!isColumn || !isRow || own.length !== count || others.length !== all) return false;
  const [first = 0] = others;
  return (
    others.every((place, at) => place === first + at) &&
    own.every((place, at) => place === first + start + at)
  );
}
