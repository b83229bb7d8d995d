/**
 * How each value of a batch follows from its values in the parts: the graph of a part is compared
 * with that of the whole. Dims of other sizes are the batch; operators' batch rules tell the rest.
 */
import {
  type BatchRule,
  type GraphBuilder,
  type Node,
  typeOf,
  type Value,
  withOutputs,
} from "../../graph/index.ts";
import { builderLike, operatorTable } from "../../ops/index.ts";
import { isFloat, sameShape } from "../../tensor/index.ts";
import {
  type BatchKindsOptions,
  FIXED,
  type Given,
  isOfBatch,
  type Kind,
  type Pair,
  ROWS,
} from "./batch-kind.ts";
import { mixesSamples } from "./batch-mixing.ts";
import { RELATES, relateShapes } from "./batch-shapes.ts";
import { GraphCopy } from "./graph-copy.ts";
import { type LinearContext, linearKind } from "./linear-sums.ts";
import { matchGraphs, passesOver } from "./match-graphs.ts";
import { fieldsOf, sizeOf, statisticsOf } from "./model-batch.ts";
import { exactMean, outputPairs, rewriteNode } from "./rewrite-node.ts";

export class BatchKinds implements LinearContext {
  readonly part: GraphBuilder;
  readonly whole: GraphBuilder;
  readonly given: Given[] = [];
  readonly share: number;
  readonly #options: BatchKindsOptions;
  /** The numbers of samples of a part and of the whole; equal if the model has one size only. */
  readonly #sizes: readonly [part: number, whole: number];
  /** The kinds, by the name of the value in the graph of a part. */
  readonly #kinds = new Map<string, Kind>();
  readonly #trained: Set<string>;
  readonly #statistics: Set<string>;
  /** The values of the builders that stand for given values, by name in the graph of a part. */
  readonly #pairs = new Map<string, Pair>();
  readonly #byPart = new Map<string, Pair>();
  readonly #whole: GraphCopy;
  /** Nodes of the graph of a part that have no counterpart in the graph of the whole batch. */
  readonly #alone: GraphCopy;
  /** The names of fixed values that are made of constants that depend on the size of the batch. */
  readonly #sized = new Set<string>();
  #difference: string | undefined;

  /** @param outputs of the model; only what they need is looked at */
  constructor(outputs: readonly string[], options: BatchKindsOptions) {
    const { part: model } = options;
    const part = withOutputs(model.graph, outputs);
    this.#options = options;
    this.#sizes = [sizeOf(model), sizeOf(options.whole)];
    this.share = options.share;
    this.part = builderLike(part);
    this.#whole = new GraphCopy(withOutputs(options.whole.graph, outputs));
    this.whole = this.#whole.builder;
    this.#alone = new GraphCopy(part, this.part);
    this.#trained = new Set(model.parameters.map(({ name }) => name));
    this.#statistics = new Set(statisticsOf(model));
    const rows = new Set(fieldsOf(model));
    for (const name of part.inputs) {
      const other = this.#whole.value(name);
      if (other === undefined) {
        this.#difference = `the input "${name}"`;
        return;
      }
      const pair = { part: this.part.input(name, typeOf(part, name)), whole: other };
      this.#set(name, pair, rows.has(name) ? ROWS : FIXED);
    }
    const names = matchGraphs(part, this.#whole.graph);
    for (const node of part.nodes) {
      if (this.#difference !== undefined) return;
      const made = node.outputs.find((name) => name !== "") ?? "";
      const other = this.#whole.makerOf(names.get(made) ?? "");
      if (other !== undefined) this.#node(node, other);
      else this.#passOver(node);
    }
  }

  /** Whether every node of the graph of a part has a matching node in the other graph. */
  get isMatched(): boolean {
    return this.#alone.isEmpty;
  }

  /** The pair that stands for a value of the given graph. */
  pair(name: string): Pair | undefined {
    return this.#pairs.get(name);
  }

  /** The pair of a value in the builder of a part; undefined for constants that a rule made. */
  pairOf(part: string): Pair | undefined {
    return this.#byPart.get(part);
  }

  kind(name: string): Kind {
    if (this.#difference !== undefined) {
      const reason = `${this.#difference} is different at another size of the batch`;
      return { kind: "mixed", reason };
    }
    const pair = this.#pairs.get(name);
    return (pair && this.#kinds.get(pair.part.name)) ?? FIXED;
  }

  kindOf({ part }: Pair): Kind {
    return this.#kinds.get(part.name) ?? FIXED;
  }

  get isFixed(): boolean {
    return this.#sizes[0] === this.#sizes[1];
  }

  isSized({ part }: Pair): boolean {
    return this.#sized.has(part.name);
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

  /** The pair for an input of a node. One constant of a part may be two in the other graph. */
  #input(name: string, other: string): Pair | undefined {
    if (name === "") return undefined;
    const part = this.#alone.graph.constants.get(name);
    const key = part === undefined ? name : `${name}\n${other}`;
    const known = this.#pairs.get(key);
    const whole = this.#whole.value(other);
    const alone = known === undefined ? this.#alone.copied(name) : undefined;
    if (alone !== undefined && whole !== undefined) return this.#join(name, alone, whole);
    // It differs from the value as made if only the other graph reshapes it before it is read.
    if (known !== undefined) return { part: known.part, whole: whole ?? known.whole };
    if (part === undefined || whole === undefined) {
      this.#difference ??= `the value "${name}"`;
      return undefined;
    }
    const own = this.part.has(name) ? `${name}/${other}` : name;
    const pair = { part: this.part.namedConstant(own, part), whole };
    const isSame = sameShape(part.shape, whole.shape);
    this.#set(key, pair, isSame ? FIXED : ROWS);
    if (isSame && this.share < 1 && !this.#whole.hasConstant(other, part)) this.#sized.add(own);
    return pair;
  }

  /** Joins values of unmatched nodes that a matched node reads; shapes show if they are rows. */
  #join(name: string, part: Value, whole: Value): Pair {
    const pair = { part, whole };
    const isSame = sameShape(part.shape, whole.shape);
    const reason = `"${name}" is computed differently at another size of the batch`;
    this.#set(name, pair, isSame ? this.#mixed(reason) : ROWS);
    this.#trained.add(part.name);
    return pair;
  }

  /** Adds an unmatched node. If it only reshapes its first input, its kind is known at once. */
  #passOver(node: Node): void {
    const from = this.#pairs.get(passesOver(this.#alone.graph, node) ?? "");
    const [part] = this.#alone.addBeside(node, (name) => this.#pairs.get(name)?.part);
    if (from === undefined || part === undefined) return;
    const kind = this.kindOf(from);
    const pair = { part, whole: from.whole };
    this.#set(node.outputs[0] as string, pair, kind.kind === "sum" ? { ...kind, part } : kind);
    if (this.isTrained(from)) this.#trained.add(part.name);
    if (this.isSized(from)) this.#sized.add(part.name);
    if (this.#statistics.has(from.part.name)) this.#statistics.add(part.name);
  }

  #node(node: Node, other: Node): void {
    const inputs = node.inputs.map((name, index) => this.#input(name, other.inputs[index] ?? ""));
    if (this.#difference !== undefined) return;
    const used = this.#options.totalsFirst ? this.#giveTotals(inputs) : inputs;
    const { op, name, attributes, outputs } = node;
    const [own, theirs] = [used.map((pair) => pair?.part), used.map((pair) => pair?.whole)];
    const part = this.part.append(op, name, own, attributes, outputs);
    const whole = this.#whole.add(other, theirs);
    const pairs = node.outputs.map((name, index): [string, Pair] => [
      name,
      { part: part[index] as Value, whole: whole[index] as Value },
    ]);
    this.#take(node, used, pairs);
    for (const [index, output] of outputs.entries()) {
      const now = this.#pairs.get(output);
      if (now !== undefined) this.#whole.replace(other.outputs[index] ?? "", now.whole);
    }
  }

  /** Determines the kinds of the outputs of a node that is now in both builders. */
  #take(node: Node, inputs: readonly (Pair | undefined)[], pairs: readonly [string, Pair][]): void {
    for (const [name, pair] of pairs) {
      if (name === "") continue;
      const kind = this.#judge(node, inputs, pair);
      if ("part" in kind && "whole" in kind) this.#pairs.set(name, kind);
      else this.#set(name, pair, kind);
    }
    this.#mark(node, inputs, pairs);
  }

  #mark(node: Node, inputs: readonly (Pair | undefined)[], pairs: readonly [string, Pair][]): void {
    const isStep = "zero" in (operatorTable.find(node.op)?.gradient ?? {});
    const isTrained = !isStep && inputs.some((pair) => pair && this.isTrained(pair));
    const own = inputs.filter((pair) => pair && isOfBatch(this.kindOf(pair))) as Pair[];
    const isStatistic = own.length > 0 && own.every(({ part }) => this.#statistics.has(part.name));
    const isSized = inputs.some((pair) => pair && this.isSized(pair));
    for (const [name, pair] of pairs) {
      if (name === "") continue;
      const now = this.#pairs.get(name) ?? pair;
      if (isSized && this.kindOf(now).kind === "fixed") this.#sized.add(now.part.name);
      if (isTrained && isFloat(now.part.dtype)) this.#trained.add(now.part.name);
      if (isStatistic && this.kindOf(now).kind !== "rows") this.#statistics.add(now.part.name);
    }
  }

  /** Makes inputs of the totals that this node reads beside rows or values with gradients. */
  #giveTotals(inputs: readonly (Pair | undefined)[]): (Pair | undefined)[] {
    const isGiven = (pair: Pair) =>
      isOfBatch(this.kindOf(pair)) &&
      !this.isTrained(pair) &&
      !this.#statistics.has(pair.part.name);
    const needed = inputs.some(
      (pair) => pair && (this.isTrained(pair) || this.kindOf(pair).kind === "rows"),
    );
    if (!needed) return [...inputs];
    return inputs.map((pair) => {
      if (pair === undefined || !isGiven(pair)) return pair;
      const known = this.given.find(({ pair: own }) => own.part === pair.part);
      if (known !== undefined) return this.#pairs.get(known.input);
      const input = `/total.${this.given.length}`;
      this.given.push({ input, pair });
      const [part, whole] = [this.part, this.whole].map((on) => on.input(input, pair.part.type));
      this.#set(input, { part: part as Value, whole: whole as Value }, FIXED);
      return this.#pairs.get(input);
    });
  }

  /** Determines the kind of an output, or the value that stands for it. */
  #judge(node: Node, inputs: readonly (Pair | undefined)[], pair: Pair): Kind | Pair {
    const kinds = inputs.map((input) => (input === undefined ? FIXED : this.kindOf(input)));
    const mixed = kinds.find(({ kind }) => kind === "mixed");
    if (mixed !== undefined) return mixed;
    const what = `"${node.name}" (${node.op})`;
    const isOfRows = kinds.some(({ kind }) => kind === "rows");
    const relation = relateShapes(this.#sizes, pair.part.shape, pair.whole.shape, isOfRows);
    if (relation === "same") {
      if (kinds.every(({ kind }) => kind === "fixed")) return FIXED;
      if (isOfRows) return this.#reduced(node, inputs, what);
      return linearKind(this, this.#ruleOf(node).linear, { node, inputs }, pair);
    }
    if (relation !== "rows") return this.#mixed(`${what} ${relation}`);
    if (mixesSamples(node, inputs, this.#sizes)) return this.#mixed(`${what} ${RELATES}`);
    const batchWide = inputs.find(
      (input) => input && isOfBatch(this.kindOf(input)) && !this.#statistics.has(input.part.name),
    );
    if (batchWide === undefined) return ROWS;
    return this.#mixed(
      `${what} gives each sample a value of all samples, "${batchWide.part.name}"`,
    );
  }

  #mixed(reason: string): Kind {
    return this.#options.isVouched ? ROWS : { kind: "mixed", reason };
  }

  #ruleOf(node: Node): BatchRule {
    return operatorTable.find(node.op)?.batch ?? {};
  }

  /** Determines the kind for a node that reduces the dim of the batch. */
  #reduced(node: Node, inputs: readonly (Pair | undefined)[], what: string): Kind | Pair {
    const unknown = this.#mixed(`${what} is not a sum over the samples of a batch`);
    const { reduces, sumOf } = this.#ruleOf(node);
    if (reduces === undefined || inputs.some((pair) => pair && isOfBatch(this.kindOf(pair)))) {
      return unknown;
    }
    const values = (side: keyof Pair) => inputs.map((pair) => pair?.[side]);
    const form = typeof reduces === "string" ? reduces : this.#rewritten(node, values, reduces);
    if (form === undefined) return unknown;
    if (typeof form !== "string") return form;
    const part = this.part.value(node.outputs[0] as string);
    if (form === "sum") return { kind: "sum", factor: 1, part };
    const mean = { kind: "sum" as const, factor: this.share, part };
    if (!this.#options.exactMeans || sumOf === undefined) return mean;
    return exactMean(mean, sumOf, node, values("part"));
  }

  /** Replaces an operator in both graphs by the nodes that it is composed of. */
  #rewritten(
    node: Node,
    values: (side: keyof Pair) => (Value | undefined)[],
    rule: Exclude<BatchRule["reduces"], string | undefined>,
  ): "sum" | "mean" | Pair | undefined {
    const part = rewriteNode(this.part, node, values("part"), rule);
    const whole = rewriteNode(this.whole, node, values("whole"), rule);
    for (const [index, own] of part.nodes.entries()) {
      const inputs = own.inputs.map((name) => this.pairOf(name));
      this.#take(own, inputs, outputPairs([this.part, this.whole], own, whole.nodes[index]));
    }
    if (typeof part.result !== "object" || typeof whole.result !== "object") {
      return typeof part.result === "object" ? undefined : part.result;
    }
    return { part: part.result, whole: whole.result };
  }
}
