/**
 * How each value of a model over a batch follows from its values over the parts of the batch. Found by comparing the graph of a
 * part with that of the whole, node by node: dims that differ are the batch, and operators answer for the rest.
 */

import { mul } from "../functional/index.ts";
import {
  type BatchRule,
  type Graph,
  type GraphBuilder,
  type Node,
  readAttributes,
  typeOf,
  type Value,
} from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import {
  elementCount,
  isFloat,
  type Shape,
  sameShape,
  type Tensor,
  toNumbers,
} from "../tensor/index.ts";
import { matchGraphs, passesOver } from "./match-graphs.ts";

/** One value in both graphs. */
export interface Pair {
  readonly part: Value;
  readonly whole: Value;
}

export type Kind =
  /** The same in every part: constants, parameters and what is made of them. */
  | { readonly kind: "fixed" }
  /** That of the whole is those of the parts, one after the other. */
  | { readonly kind: "rows" }
  /** That of the whole is `factor` times the sum of those of the parts. `part` may be another value than the node's own. */
  | { readonly kind: "sum"; readonly factor: number; readonly part: Value }
  /** Computed from sums: it has a meaning for the whole batch only. */
  | { readonly kind: "total" }
  /** Nothing of the above, and why. */
  | { readonly kind: "mixed"; readonly reason: string };

export interface BatchKindsOptions {
  readonly part: Graph;
  /** The same model, for more samples. */
  readonly whole: Graph;
  /** Inputs whose leading dim is the batch. */
  readonly fields: readonly string[];
  /** Inputs that gradients are wanted for. */
  readonly parameters: readonly string[];
  /** Values that running statistics are made of: those of a part are used in place of those of the whole. */
  readonly statistics: ReadonlySet<string>;
  /** Samples of a part over those of the batch: of `whole`, unless the part is the batch and `whole` shows only which dims are it. */
  readonly share: number;
  /** Samples of `part` and of `whole`; the same where the model has one size only. */
  readonly sizes: readonly [part: number, whole: number];
  /** Whether it is known from other sizes that no sample has to do with another: then what looks so is a difference of the graphs. */
  readonly isVouched: boolean;
  /** Whether means are taken as sums, so that what is divided is not rounded before it is added up. */
  readonly exactMeans: boolean;
  /** Whether totals that no parameter changes are made first, for the whole batch, and then given to every part. */
  readonly totalsFirst: boolean;
}

type PartSum = Pick<Extract<Kind, { kind: "sum" }>, "factor" | "part">;

/** A total that is given to the graph of a part as an input. */
export interface Given {
  readonly input: string;
  readonly pair: Pair;
}

const FIXED: Kind = { kind: "fixed" };
const ROWS: Kind = { kind: "rows" };

export class BatchKinds {
  readonly part: GraphBuilder;
  readonly whole: GraphBuilder;
  readonly given: Given[] = [];
  readonly share: number;
  readonly #fixedBatch: number | undefined;
  readonly #options: BatchKindsOptions;
  /** By the name of the value of a part. */
  readonly #kinds = new Map<string, Kind>();
  readonly #trained: Set<string>;
  readonly #statistics: Set<string>;
  /** Values that stand for those of the given graphs, by the name in the graph of a part. */
  readonly #pairs = new Map<string, Pair>();
  readonly #byPart = new Map<string, Pair>();
  /** Values of the builder of the whole by their names in its graph, and the nodes of that graph by what they make. */
  readonly #others = new Map<string, Value>();
  /** Values of the builder of a part that no node of the other graph makes. */
  readonly #alone = new Map<string, Value>();
  /** Whether each node of the graph of a part is one of the other graph too. */
  isMatched = true;
  #makers: ReadonlyMap<string, Node> = new Map();
  /** Fixed values that are made of constants that depend on the size of the batch. */
  readonly #sized = new Set<string>();
  #difference: string | undefined;

  constructor(options: BatchKindsOptions) {
    this.#options = options;
    const { part, whole, fields, parameters, statistics } = options;
    this.share = options.share;
    const [size, wholeSize] = options.sizes;
    this.#fixedBatch = size === wholeSize ? size : undefined;
    this.part = newBuilder(part.name);
    this.whole = newBuilder(whole.name);
    this.#trained = new Set(parameters);
    this.#statistics = new Set(statistics);
    const rows = new Set(fields);
    for (const name of part.inputs) {
      if (!whole.inputs.includes(name)) {
        this.#difference = `the input "${name}"`;
        return;
      }
      const pair = {
        part: this.part.input(name, typeOf(part, name)),
        whole: this.whole.input(name, typeOf(whole, name)),
      };
      this.#others.set(name, pair.whole);
      this.#set(name, pair, rows.has(name) ? ROWS : FIXED);
    }
    const names = matchGraphs(part, whole);
    const makers = new Map(
      whole.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
    );
    this.#makers = makers;
    for (const node of part.nodes) {
      if (this.#difference !== undefined) return;
      const other = makers.get(names.get(node.outputs.find((name) => name !== "") ?? "") ?? "");
      if (other !== undefined) this.#node(node, other);
      else if (!this.#passOver(node)) this.#addAlone(node);
    }
  }

  /** What a value of the given graph has become. */
  pair(name: string): Pair | undefined {
    return this.#pairs.get(name);
  }

  /** By the name of its value in the builder of a part; undefined for constants that a rule made. */
  pairOf(part: string): Pair | undefined {
    return this.#byPart.get(part);
  }

  kind(name: string): Kind {
    if (this.#difference !== undefined) {
      const reason = `${this.#difference} is another one at another size of the batch`;
      return { kind: "mixed", reason };
    }
    const pair = this.#pairs.get(name);
    return (pair && this.#kinds.get(pair.part.name)) ?? FIXED;
  }

  kindOf({ part }: Pair): Kind {
    return this.#kinds.get(part.name) ?? FIXED;
  }

  /** Whether a gradient of a parameter can go through this value. */
  isTrained({ part }: Pair): boolean {
    return this.#trained.has(part.name);
  }

  #set(name: string, pair: Pair, kind: Kind): void {
    this.#pairs.set(name, pair);
    this.#byPart.set(pair.part.name, pair);
    this.#kinds.set(pair.part.name, kind);
  }

  /**
   * An input of a node; constants come with their first reader. Equal constants are one in a graph: what is one in the graph of a part
   * may be two in the other.
   */
  #input(name: string, other: string): Pair | undefined {
    if (name === "") return undefined;
    const part = this.#options.part.constants.get(name);
    const key = part === undefined ? name : `${name}\n${other}`;
    const known = this.#pairs.get(key);
    const whole = this.#other(other);
    const alone = known === undefined ? this.#alone.get(name) : undefined;
    if (alone !== undefined && whole !== undefined) return this.#join(name, alone, whole);
    // Another value than where it was made where the other graph alone shapes it before it is read.
    if (known !== undefined) return { part: known.part, whole: whole ?? known.whole };
    if (part === undefined || whole === undefined) {
      this.#difference ??= `the value "${name}"`;
      return undefined;
    }
    const own = this.part.has(name) ? `${name}/${other}` : name;
    const pair = { part: this.part.namedConstant(own, part), whole };
    const isSame = sameShape(part.shape, whole.shape);
    this.#set(key, pair, isSame ? FIXED : ROWS);
    const tensor = this.#options.whole.constants.get(other);
    if (isSame && this.share < 1 && tensor !== undefined && !sameBytes(part, tensor)) {
      this.#sized.add(own);
    }
    return pair;
  }

  /** A value of the other graph, with the nodes that only it has. */
  #other(name: string): Value | undefined {
    if (name === "") return undefined;
    const known = this.#others.get(name);
    if (known !== undefined) return known;
    const constant = this.#options.whole.constants.get(name);
    if (constant !== undefined) {
      const value = this.whole.namedConstant(name, constant);
      this.#others.set(name, value);
      return value;
    }
    const node = this.#makers.get(name);
    if (node === undefined) return undefined;
    this.#addOther(
      node,
      node.inputs.map((input) => this.#other(input)),
    );
    return this.#others.get(name);
  }

  #addOther(node: Node, inputs: readonly (Value | undefined)[]): Value[] {
    const { op, name, attributes, outputs } = node;
    const values = this.whole.append(op, name, inputs, attributes, outputs);
    for (const [index, output] of outputs.entries()) {
      if (output !== "") this.#others.set(output, values[index] as Value);
    }
    return values;
  }

  /** A node that the other graph has not. What it gives is known where a node that both have reads it. */
  #addAlone(node: Node): (Value | undefined)[] {
    const { op, name, attributes, outputs } = node;
    const inputs = node.inputs.map((input) => {
      const known = this.#alone.get(input) ?? this.#pairs.get(input)?.part;
      const constant = this.#options.part.constants.get(input);
      return known ?? (constant && this.part.constant(constant));
    });
    const values = this.part.append(op, name, inputs, attributes, outputs);
    for (const [index, output] of outputs.entries()) {
      if (output !== "") this.#alone.set(output, values[index] as Value);
    }
    this.isMatched = false;
    return values;
  }

  /** What comes from nodes of one graph and is read by a node of both: rows, as far as shapes can tell. */
  #join(name: string, part: Value, whole: Value): Pair {
    const pair = { part, whole };
    const isSame = sameShape(part.shape, whole.shape);
    const reason = `"${name}" is computed in another way at another size of the batch`;
    this.#set(name, pair, isSame ? this.#mixed(reason) : ROWS);
    this.#trained.add(part.name);
    return pair;
  }

  /** A node of the graph of a part alone that shapes its first input; false for any other. */
  #passOver(node: Node): boolean {
    const from = this.#pairs.get(passesOver(this.#options.part, node) ?? "");
    if (from === undefined) return false;
    const { outputs } = node;
    const [part] = this.#addAlone(node);
    if (part === undefined) return false;
    const kind = this.kindOf(from);
    const pair = { part, whole: from.whole };
    this.#set(outputs[0] as string, pair, kind.kind === "sum" ? { ...kind, part } : kind);
    if (this.isTrained(from)) this.#trained.add(part.name);
    if (this.#sized.has(from.part.name)) this.#sized.add(part.name);
    if (this.#statistics.has(from.part.name)) this.#statistics.add(part.name);
    return true;
  }

  #node(node: Node, other: Node): void {
    const inputs = node.inputs.map((name, index) => this.#input(name, other.inputs[index] ?? ""));
    if (this.#difference !== undefined) return;
    const used = this.#options.totalsFirst ? this.#giveTotals(inputs) : inputs;
    const { op, name, attributes, outputs } = node;
    const own = used.map((pair) => pair?.part);
    const part = this.part.append(op, name, own, attributes, outputs);
    const whole = this.#addOther(
      other,
      used.map((pair) => pair?.whole),
    );
    const pairs = node.outputs.map((name, index): [string, Pair] => [
      name,
      { part: part[index] as Value, whole: whole[index] as Value },
    ]);
    for (const [name, pair] of pairs) {
      if (name === "") continue;
      const kind = this.#judge(node, used, pair);
      if ("part" in kind && "whole" in kind) {
        this.#pairs.set(name, kind);
        this.#others.set(other.outputs[outputs.indexOf(name)] ?? "", kind.whole);
      } else this.#set(name, pair, kind);
    }
    this.#mark(node, used, pairs);
  }

  #mark(node: Node, inputs: readonly (Pair | undefined)[], pairs: readonly [string, Pair][]): void {
    const definition = this.part.operators.find(node.op);
    const isStep = definition !== undefined && "zero" in definition.gradient;
    const isTrained = !isStep && inputs.some((pair) => pair && this.isTrained(pair));
    const own = inputs.filter((pair) => pair && this.#isOfBatch(pair)) as Pair[];
    const isStatistic = own.length > 0 && own.every(({ part }) => this.#statistics.has(part.name));
    const isSized = inputs.some((pair) => pair && this.#sized.has(pair.part.name));
    for (const [name, pair] of pairs) {
      if (name === "") continue;
      const now = this.#pairs.get(name) ?? pair;
      if (isSized && this.kindOf(now).kind === "fixed") this.#sized.add(now.part.name);
      if (isTrained && isFloat(now.part.dtype)) this.#trained.add(now.part.name);
      if (isStatistic && this.kindOf(now).kind !== "rows") this.#statistics.add(now.part.name);
    }
  }

  /** A sum or total: it has no value before all parts have been seen. */
  #isOfBatch(pair: Pair): boolean {
    const { kind } = this.kindOf(pair);
    return kind === "sum" || kind === "total";
  }

  /** Inputs for totals that this node reads beside what changes with the parameters. */
  #giveTotals(inputs: readonly (Pair | undefined)[]): (Pair | undefined)[] {
    const isGiven = (pair: Pair) => this.#isOfBatch(pair) && !this.isTrained(pair);
    const needed = inputs.some(
      (pair) => pair && (this.isTrained(pair) || this.kindOf(pair).kind === "rows"),
    );
    if (!needed) return [...inputs];
    return inputs.map((pair) => {
      if (pair === undefined || !isGiven(pair)) return pair;
      const known = this.given.find(({ pair: own }) => own.part === pair.part);
      if (known !== undefined) return this.#pairs.get(known.input);
      const input = `/total.${this.given.length}`;
      const own = {
        part: this.part.input(input, pair.part.type),
        whole: this.whole.input(input, pair.whole.type),
      };
      this.given.push({ input, pair });
      this.#set(input, own, FIXED);
      return own;
    });
  }

  /** The kind of an output, or the value that stands for it. */
  #judge(node: Node, inputs: readonly (Pair | undefined)[], pair: Pair): Kind | Pair {
    const kinds = inputs.map((input) => (input === undefined ? FIXED : this.kindOf(input)));
    const mixed = kinds.find(({ kind }) => kind === "mixed");
    if (mixed !== undefined) return mixed;
    const what = `"${node.name}" (${node.op})`;
    const [small, large] = [pair.part.shape, pair.whole.shape];
    if (small.length !== large.length) {
      return this.#mixed(`${what} has other dims at another size of the batch`);
    }
    const isOfRows = kinds.some(({ kind }) => kind === "rows");
    const scaled = this.#scaledDims(small, large, isOfRows);
    if (scaled.length === 0) {
      if (kinds.every(({ kind }) => kind === "fixed")) return FIXED;
      if (isOfRows) return this.#reduced(node, inputs, what);
      return this.#ofTotals(node, inputs, pair);
    }
    const [size, wholeSize] = this.#options.sizes;
    const isShared = scaled.every((dim) => {
      const share = (small[dim] as number) / (large[dim] as number);
      return this.#fixedBatch !== undefined || Math.abs(share - size / wholeSize) < 1e-9;
    });
    if (scaled.length > 1 || !isShared) {
      return this.#mixed(`${what} relates the samples of a batch to each other`);
    }
    const batchWide = inputs.find(
      (input) => input && this.#isOfBatch(input) && !this.#statistics.has(input.part.name),
    );
    if (batchWide === undefined) return ROWS;
    return this.#mixed(
      `${what} gives each sample something of all samples, "${batchWide.part.name}"`,
    );
  }

  #scaledDims(small: Shape, large: Shape, isOfRows: boolean): number[] {
    const fixedBatch = this.#fixedBatch;
    const isScaled = (size: number, dim: number) =>
      fixedBatch === undefined ? size !== large[dim] : isOfRows && size % fixedBatch === 0;
    const dims = small.flatMap((size, dim) => (isScaled(size, dim) ? [dim] : []));
    // Of one size, no dim is known to be the batch: the first that can be is taken for it.
    return fixedBatch === undefined ? dims : dims.slice(0, 1);
  }

  #mixed(reason: string): Kind {
    return this.#options.isVouched ? ROWS : { kind: "mixed", reason };
  }

  #ruleOf(node: Node): BatchRule {
    return this.part.operators.find(node.op)?.batch ?? {};
  }

  /** A node in which the dim of the batch goes. */
  #reduced(node: Node, inputs: readonly (Pair | undefined)[], what: string): Kind | Pair {
    const unknown = this.#mixed(`${what} is no sum over the samples of a batch`);
    const { reduces, sumOf } = this.#ruleOf(node);
    if (reduces === undefined || inputs.some((pair) => pair && this.#isOfBatch(pair))) {
      return unknown;
    }
    const values = (side: keyof Pair) => inputs.map((pair) => pair?.[side]);
    const form = typeof reduces === "string" ? reduces : this.#rewritten(node, values, reduces);
    if (form === undefined) return unknown;
    if (typeof form !== "string") return form;
    const part = this.part.value(node.outputs[0] as string);
    if (form === "sum") return { kind: "sum", factor: 1, part };
    const [first] = values("part");
    if (!this.#options.exactMeans || sumOf === undefined || first === undefined) {
      return { kind: "sum", factor: this.share, part };
    }
    const name = `${node.name}/sum`;
    const [total] = this.part.append(sumOf, name, values("part"), node.attributes, [name]);
    const factor = (this.share * elementCount(part.shape)) / elementCount(first.shape);
    return { kind: "sum", factor, part: total as Value };
  }

  /** The nodes that the operator is made of, in both graphs. */
  #rewritten(
    node: Node,
    values: (side: keyof Pair) => (Value | undefined)[],
    rule: Exclude<BatchRule["reduces"], string | undefined>,
  ): "sum" | "mean" | Pair | undefined {
    const definition = this.part.operators.find(node.op);
    if (definition === undefined) return undefined;
    const attributes = readAttributes(definition, node.attributes, node.name);
    const made = (side: keyof Pair) => {
      const builder = this[side];
      const inputs = values(side);
      const first = builder.nodes.length;
      const input = (index: number) => inputs[index] as Value;
      const context = { builder, attributes, inputs, input };
      const result = builder.within(`batch/${node.name}`, () => rule(context));
      return { result, nodes: builder.nodes.slice(first) };
    };
    const part = made("part");
    const whole = made("whole");
    for (const [index, own] of part.nodes.entries()) {
      const pairs = own.outputs.map((name, at): [string, Pair] => [
        name,
        {
          part: this.part.value(name),
          whole: this.whole.value(whole.nodes[index]?.outputs[at] ?? ""),
        },
      ]);
      const inputs = own.inputs.map((name) => this.pairOf(name));
      for (const [name, pair] of pairs) {
        const kind = this.#judge(own, inputs, pair);
        if ("part" in kind && "whole" in kind) this.#pairs.set(name, kind);
        else this.#set(name, pair, kind);
      }
      this.#mark(own, inputs, pairs);
    }
    if (typeof part.result !== "object" || typeof whole.result !== "object") {
      return typeof part.result === "object" ? undefined : part.result;
    }
    return { part: part.result, whole: whole.result };
  }

  /** A node of sums and fixed values. */
  #ofTotals(node: Node, inputs: readonly (Pair | undefined)[], pair: Pair): Kind {
    const { linear } = this.#ruleOf(node);
    const present = inputs.filter((input) => input !== undefined);
    const total: Kind = { kind: "total" };
    if (linear === undefined || !isFloat(pair.part.dtype)) return total;
    const sums = present.map((input) => this.#asSum(input));
    if (linear === "together") {
      if (!sums.every((sum) => sum !== undefined)) return total;
      return this.#added(pair, present, sums);
    }
    const own = present.filter((input) => this.#isOfBatch(input));
    const [first] = own;
    if (first === undefined || own.length > 1) return total;
    if (linear === "first" && first !== present[0]) return total;
    const sum = this.kindOf(first);
    if (sum.kind !== "sum") return total;
    const ratios = present.map((input) => (input === first ? 1 : this.#ratio(input)));
    if (!ratios.every((ratio) => ratio !== undefined)) return total;
    const isClear = this.#fixedBatch === undefined || sum.factor === this.share;
    if (!isClear && present.some((input) => input !== first && isFloat(input.part.dtype))) {
      const reason = `the model has a fixed batch, and "${node.name}" (${node.op}) may divide by it`;
      return { kind: "mixed", reason };
    }
    const ratio = ratios.reduce((product, own) => product * own, 1);
    const factor = sum.factor * (linear === "each" ? ratio : 1 / ratio);
    const part = this.#again(pair, [first], [sum.part]);
    return { kind: "sum", factor: this.#exact(factor), part };
  }

  /** The same node over other values in place of these; itself where they are its own. */
  #again({ part }: Pair, inputs: readonly Pair[], values: readonly Value[]): Value {
    const node = this.part.makerOf(part);
    const others = new Map(inputs.map((input, index) => [input.part.name, values[index] as Value]));
    if (node === undefined || [...others].every(([name, value]) => value.name === name))
      return part;
    const all = node.inputs.map((name) =>
      name === "" ? undefined : (others.get(name) ?? this.part.value(name)),
    );
    const name = `${node.name}/part`;
    return this.part.append(node.op, name, all, node.attributes, [name])[0] as Value;
  }

  #added(pair: Pair, inputs: readonly Pair[], sums: readonly PartSum[]): Kind {
    // What is the same in all parts counts once: as a mean over them. Others are brought to that.
    const shared = sums.find((sum) => sum.factor === this.share)?.factor;
    const factor = shared ?? (sums[0]?.factor as number);
    const values = sums.map((sum) =>
      sum.factor === factor ? sum.part : mul(sum.part, sum.factor / factor),
    );
    return { kind: "sum", factor, part: this.#again(pair, inputs, values) };
  }

  #asSum(pair: Pair): PartSum | undefined {
    const kind = this.kindOf(pair);
    if (kind.kind === "sum") return kind;
    if (kind.kind !== "fixed" || !isFloat(pair.part.dtype)) return undefined;
    const ratio = this.#ratio(pair);
    return ratio === undefined ? undefined : { factor: this.share * ratio, part: pair.part };
  }

  /** What a fixed value of the whole is, over that of a part; undefined where that is no number. */
  #ratio(pair: Pair): number | undefined {
    if (this.kindOf(pair).kind !== "fixed") return undefined;
    if (!this.#sized.has(pair.part.name)) return 1;
    const [part, whole] = [this.part.constantOf(pair.part), this.whole.constantOf(pair.whole)];
    return part === undefined || whole === undefined ? undefined : ratioOf(part, whole);
  }

  /** Without the last bits of constants that were rounded. */
  #exact(factor: number): number {
    for (const exact of [1, this.share]) {
      if (Math.abs(factor / exact - 1) < 1e-6) return exact;
    }
    return factor;
  }
}

function sameBytes(a: Tensor, b: Tensor): boolean {
  const isOne = a.bytes.buffer === b.bytes.buffer && a.bytes.byteOffset === b.bytes.byteOffset;
  return isOne || Buffer.compare(a.bytes, b.bytes) === 0;
}

/** The one number by which all elements differ. */
function ratioOf(part: Tensor, whole: Tensor): number | undefined {
  const other = toNumbers(whole);
  const ratios = toNumbers(part).map((value, index) => {
    return value === other[index] ? 1 : (other[index] as number) / value;
  });
  const [first = 1] = ratios;
  return Number.isFinite(first) && ratios.every((ratio) => ratio === first) ? first : undefined;
}
