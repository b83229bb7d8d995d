/**
 * Finds from the model's graph which values the fields of a batch may hold, because class labels
 * and row numbers are used as indices. Each element of a field is followed through nodes that only
 * move elements to the nodes that use it as an index.
 */
import type { ValueRange } from "../data/index.ts";
import {
  type ElementForm,
  type Expectation,
  type Graph,
  type IndexUse,
  inferContextOf,
  type Node,
  typeOf,
} from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { operatorTable } from "../ops/index.ts";
import { evaluateNode, fromTensor, type ReferenceTensor } from "../reference/index.ts";
import { elementCount } from "../tensor/index.ts";

/**
 * The range of each element of a sample, in order; a single range if all have the same. Undefined
 * where any number is valid.
 */
export type FieldRanges = readonly (ValueRange | undefined)[];

/** Elements of fields by number, and what was done to all of them. */
interface Followed {
  readonly elements: ReferenceTensor;
  /** The number that was added to the value on its way. */
  readonly shift: number;
  /** The numbers that are replaced on the way. */
  readonly replaced: readonly number[];
}

type FormOf<K extends ElementForm["kind"]> = Extract<ElementForm, { kind: K }>;

/** Elements are numbered from here on, far above the numbers that constants hold. */
const FIRST = 2 ** 40;

/** Returns ranges by the name of the field. Fields without limits are left out. */
export function fieldRanges(model: Model): ReadonlyMap<string, FieldRanges> {
  const pass = new Pass(model);
  for (const node of model.graph.nodes) pass.visit(node);
  for (const expectation of model.expectations) pass.expect(expectation);
  return pass.result();
}

class Pass {
  readonly #model: Model;
  readonly #graph: Graph;
  readonly #needed: ReadonlySet<string>;
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #followed = new Map<string, Followed>();
  readonly #constants = new Map<string, ReferenceTensor>();
  /**
   * For each element, from `FIRST` on, the index of its range in `#ranges`; 0 for none. It is a
   * typed array because fields may have millions of elements.
   */
  readonly #rangeOf: Uint16Array;
  readonly #ranges: (ValueRange | undefined)[] = [undefined];
  readonly #numbers = new Map<string, number>();
  readonly #starts = new Map<string, number>();

  constructor(model: Model) {
    this.#model = model;
    this.#graph = model.graph;
    this.#needed = neededFor(model);
    this.#producers = new Map(
      model.graph.nodes.flatMap((node) => node.outputs.map((output) => [output, node] as const)),
    );
    let next = FIRST;
    for (const name of model.batch) {
      if (!this.#needed.has(name)) continue;
      const { shape } = typeOf(model.graph, name);
      const data = Float64Array.from({ length: elementCount(shape) }, (_, at) => next + at);
      this.#starts.set(name, next);
      next += data.length;
      const elements = { dtype: "float64", shape, data } as const;
      this.#followed.set(name, { elements, shift: 0, replaced: [] });
    }
    this.#rangeOf = new Uint16Array(next - FIRST);
  }

  visit(node: Node): void {
    const uses = usesOf(this.#graph, node);
    for (const use of uses) this.#limit(node, use);
    if (!node.outputs.some((output) => this.#needed.has(output))) return;
    const isIndexed = uses.some(({ input }) => this.#followed.has(node.inputs[input] ?? ""));
    const { moves, form } = operatorTable.find(node.op) ?? {};
    if (moves === true) {
      if (!isIndexed) this.#move(node);
    } else if (form?.kind === "choice") this.#choose(node, form);
    else if (form?.kind === "sum") this.#shift(node, form);
  }

  result(): ReadonlyMap<string, FieldRanges> {
    const found = new Map<string, FieldRanges>();
    for (const [name, start] of this.#starts) {
      const [batch = 1, ...shape] = typeOf(this.#graph, name).shape;
      const size = elementCount(shape);
      const numbers = new Uint16Array(size);
      for (let element = 0; element < batch * size; element++) {
        const own = this.#rangeOf[start - FIRST + element] as number;
        const at = element % size;
        numbers[at] = this.#both(numbers[at] as number, own);
      }
      const first = numbers[0];
      if (numbers.every((number) => number === first)) {
        if (first !== 0) found.set(name, [this.#ranges[first as number]]);
      } else {
        found.set(
          name,
          Array.from(numbers, (number) => this.#ranges[number]),
        );
      }
    }
    return found;
  }

  /** Limits the elements of an input that holds indices to the rows or classes that exist. */
  #limit(node: Node, { input, places, wraps, ignored }: IndexUse): void {
    const followed = this.#followed.get(node.inputs[input] ?? "");
    if (followed === undefined) return;
    const { elements, shift, replaced } = followed;
    // An index of −1 is refused for a table that is learned or part of the model, as PyTorch's
    // embeddings refuse it.
    const mayWrap = wraps && !this.#isTable(node.inputs[0] ?? "");
    const except = [...replaced, ...(ignored === undefined ? [] : [ignored - shift])];
    const ranges = places.map((count) => {
      const low = (mayWrap ? -count : 0) - shift;
      return { low, high: count - 1 - shift, except };
    });
    this.#narrow(elements, ranges);
  }

  /** Limits a value to a range, if it consists of unchanged elements of fields. */
  expect({ value, range }: Expectation): void {
    const followed = this.#followed.get(value);
    if (followed === undefined || followed.shift !== 0 || followed.replaced.length > 0) return;
    this.#narrow(followed.elements, [range]);
  }

  /** Narrows the elements in order; `ranges` repeats from its beginning. */
  #narrow(elements: ReferenceTensor, ranges: readonly ValueRange[]): void {
    const numbers = ranges.map((range) => this.#numberOf(range));
    for (let at = 0; at < elements.data.length; at++) {
      const element = (elements.data[at] as number) - FIRST;
      if (element < 0) continue;
      const range = numbers[at % numbers.length] as number;
      this.#rangeOf[element] = this.#both(this.#rangeOf[element] as number, range);
    }
  }

  #numberOf(range: ValueRange | undefined): number {
    if (range === undefined) return 0;
    const key = JSON.stringify(range);
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, this.#ranges.length);
    return this.#ranges.push(range) - 1;
  }

  #both(a: number, b: number): number {
    if (a === b || b === 0) return a;
    if (a === 0) return b;
    return this.#numberOf(both(this.#ranges[a], this.#ranges[b]));
  }

  #isTable(name: string): boolean {
    const producer = this.#producers.get(name);
    if (producer === undefined) {
      const isField = this.#model.batch.includes(name);
      return !isField;
    }
    const moves = operatorTable.find(producer.op)?.moves === true;
    return moves && this.#isTable(producer.inputs[0] ?? "");
  }

  #move(node: Node): void {
    const inputs = node.inputs.map((name) => this.#tensor(name));
    if (node.inputs.some((name, at) => name !== "" && inputs[at] === undefined)) return;
    const own = node.inputs.flatMap((name) => this.#followed.get(name) ?? []);
    const [first] = own;
    const alike = own.every(
      ({ shift, replaced }) =>
        shift === first?.shift && String(replaced) === String(first.replaced),
    );
    if (first === undefined || !alike) return;
    const types = node.outputs.map((name) => ({
      dtype: "float64" as const,
      shape: name === "" ? [] : typeOf(this.#graph, name).shape,
    }));
    for (const [index, elements] of evaluateNode(node, inputs, types).entries()) {
      this.#followed.set(node.outputs[index] ?? "", { ...first, elements });
    }
  }

  /** Handles `Where(x == c, k, x)`, where c is replaced by k. */
  #choose(node: Node, form: FormOf<"choice">): void {
    const [test, yes, no] = [
      this.#equality(node.inputs[form.condition] ?? ""),
      node.inputs[form.yes] ?? "",
      node.inputs[form.no] ?? "",
    ];
    if (test === undefined) return;
    const [kept, other] = test.negated ? [yes, no] : [no, yes];
    const followed = this.#followed.get(kept);
    if (followed === undefined || this.#tensor(other) === undefined) return;
    const same = test.elements.length === followed.elements.data.length;
    if (!same || !followed.elements.data.every((element, at) => element === test.elements[at]))
      return;
    const replaced = [...followed.replaced, test.value - followed.shift];
    this.#followed.set(node.outputs[0] ?? "", { ...followed, replaced });
  }

  #equality(name: string): { elements: Float64Array; value: number; negated: boolean } | undefined {
    const node = this.#producers.get(name);
    if (node === undefined) return undefined;
    const { form } = operatorTable.find(node.op) ?? {};
    if (form?.kind === "negation") {
      const inner = this.#equality(node.inputs[0] ?? "");
      return inner && { ...inner, negated: !inner.negated };
    }
    if (form?.kind !== "equality") return undefined;
    const [left, right] = node.inputs.map((input) => this.#followed.get(input));
    const followed = left ?? right;
    const value = this.#number(node.inputs[left === undefined ? 0 : 1] ?? "");
    if (followed === undefined || value === undefined) return undefined;
    return { elements: followed.elements.data, value, negated: false };
  }

  #shift(node: Node, { signs }: FormOf<"sum">): void {
    const [left = "", right = ""] = node.inputs;
    const isLeft = this.#followed.has(left);
    const [own, other] = isLeft ? [0, 1] : [1, 0];
    const followed = this.#followed.get(isLeft ? left : right);
    const value = this.#number(isLeft ? right : left);
    if (followed === undefined || value === undefined || signs[own] !== 1) return;
    const shift = followed.shift + (signs[other] as number) * value;
    this.#followed.set(node.outputs[0] ?? "", { ...followed, shift });
  }

  /** Returns the number that all elements of a constant are, if they are equal. */
  #number(name: string): number | undefined {
    const data = this.#constant(name)?.data;
    const value = data?.[0];
    return data?.every((other) => other === value) === true ? value : undefined;
  }

  #tensor(name: string): ReferenceTensor | undefined {
    return this.#followed.get(name)?.elements ?? this.#constant(name);
  }

  #constant(name: string): ReferenceTensor | undefined {
    const tensor = this.#graph.constants.get(name);
    if (tensor === undefined) return undefined;
    const known = this.#constants.get(name) ?? fromTensor(tensor);
    this.#constants.set(name, known);
    return known;
  }
}

function usesOf(graph: Graph, node: Node): readonly IndexUse[] {
  const definition = operatorTable.find(node.op);
  if (definition?.indices === undefined) return [];
  return definition.indices(inferContextOf(graph, node, definition));
}

/** Returns the values on the way to indices, and to other values with an expected range. */
function neededFor({ graph, expectations }: Model): ReadonlySet<string> {
  const needed = new Set(expectations.map(({ value }) => value));
  for (const node of graph.nodes.toReversed()) {
    for (const { input } of usesOf(graph, node)) needed.add(node.inputs[input] ?? "");
    if (!node.outputs.some((output) => needed.has(output))) continue;
    for (const input of node.inputs) needed.add(input);
  }
  return needed;
}

/** Returns what both ranges allow. */
function both(a: ValueRange | undefined, b: ValueRange | undefined): ValueRange | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const except = [...new Set([...a.except, ...b.except])].sort((x, y) => x - y);
  return {
    ...(a.whole === false && b.whole === false ? { whole: false } : {}),
    low: Math.max(a.low, b.low),
    high: Math.min(a.high, b.high),
    // A number that one use replaces and another uses as an index must be in the other's range.
    except: except.filter((value) =>
      [a, b].every((r) => r.except.includes(value) || (value >= r.low && value <= r.high)),
    ),
  };
}
