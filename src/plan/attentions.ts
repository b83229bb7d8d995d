/**
 * Puts one node in place of each attention that a model writes out, so that ranks can divide it by
 * keys (`lockstep::RingAttention`). It is found in the forward pass, and has a gradient of its own.
 */
import { add, reshape, swapLast, where } from "../functional/index.ts";
import { type Graph, type Node, typeOf, type Value } from "../graph/index.ts";
import { builderLike, remade } from "../ops/index.ts";
import { type DType, elementCount, normalizeDim, sameShape } from "../tensor/index.ts";
import { type Made, ofOperator, RING } from "./attention-nodes.ts";
import type { Mask } from "./hidden-keys.ts";
import { type Attention, type Taken, WrittenAttention } from "./written-attention.ts";

/** Attention as one node has it: with all queries, and masks beside a causal one. */
interface Whole extends Attention {
  /** What has the leading dims in which q, k and v are multiplied. */
  readonly forms: Pick<Attention, "q" | "k" | "v">;
  readonly isCausal: boolean;
}

/** @param trained the inputs that gradients are made for */
export function withRings(graph: Graph, trained: Iterable<string>): Graph {
  const written = new WrittenAttention(graph, new Set(trained));
  const found = new Map<string, Attention>();
  for (const node of graph.nodes.filter(({ op }) => op === "Softmax")) {
    const own = written.of(node);
    if (own !== undefined) found.set(own.output, own);
  }
  const made = new Map<string, Made>();
  const add = (whole: Whole | undefined) => {
    if (whole !== undefined) made.set(whole.output, (valueOf) => ringOf(graph, whole, valueOf));
  };
  const parts = new Set<string>();
  for (const node of graph.nodes.filter(({ op }) => op === "Concat")) {
    const blocks = node.inputs.map((name) => found.get(name));
    const whole = blocks.every((own) => own !== undefined)
      ? ofBlocks(graph, node, blocks, written)
      : undefined;
    if (whole === undefined) continue;
    add(whole);
    for (const name of node.inputs) parts.add(name);
  }
  for (const own of found.values()) {
    if (!parts.has(own.output)) add(ofOne(graph, own, written));
  }
  for (const node of graph.nodes.filter(({ op }) => op === "Attention")) {
    const own = ofOperator(graph, node, written.trained);
    if (own !== undefined) made.set(node.outputs[0] as string, own);
  }
  return made.size === 0 ? graph : replaced(graph, made);
}

/** The number of keys, by which scores are made. */
function keysOf(graph: Graph, { k, isTransposed }: Attention): number {
  return typeOf(graph, k).shape.at(isTransposed ? -1 : -2) as number;
}

function ofOne(graph: Graph, own: Attention, written: WrittenAttention): Whole | undefined {
  const count = typeOf(graph, own.q).shape.at(-2) as number;
  const keys = keysOf(graph, own);
  const isCausal = (mask: Mask) =>
    count === keys && written.hidden.isCausal(mask, { start: 0, count, keys });
  const others = own.masks.filter((mask) => !isCausal(mask));
  if (!areAdded(others)) return undefined;
  return { ...own, forms: own, masks: others, isCausal: others.length < own.masks.length };
}

/** A score that is replaced by a finite number is not one that this number is added to. */
function areAdded(masks: readonly Mask[]): boolean {
  return masks.every((mask) => mask.kind === "added" || mask.by === Number.NEGATIVE_INFINITY);
}

/** Attention whose queries are in blocks, each of which has keys up to its end. */
function ofBlocks(
  graph: Graph,
  node: Node,
  blocks: readonly Attention[],
  written: WrittenAttention,
): Whole | undefined {
  const [output = ""] = node.outputs;
  const rank = typeOf(graph, output).shape.length;
  const axis = normalizeDim(Number(node.attributes["axis"]?.value), rank);
  const [first] = blocks;
  if (axis !== rank - 2 || first === undefined) return undefined;
  const queries = blocks.map(({ q }) => written.taken(q));
  const keys = blocks.map(({ k }) => written.taken(k));
  const values = blocks.map(({ v }) => written.taken(v));
  const sourceOf = ([own]: readonly Taken[]) => (own as Taken).source;
  const length = typeOf(graph, sourceOf(queries)).shape.at(-2) as number;
  const isSame = (taken: readonly Taken[]) =>
    taken.every(({ source }) => source === sourceOf(taken)) &&
    typeOf(graph, sourceOf(taken)).shape.at(-2) === length;
  const areInOrder = queries.every(({ start, end }, at) => {
    const [k, v] = [keys[at], values[at]] as [Taken, Taken];
    const follows = start === (queries[at - 1]?.end ?? 0);
    return follows && [k, v].every((own) => own.start === 0 && own.end === k.end) && k.end >= end;
  });
  const isWhole = [queries, keys, values].every(isSame) && queries.at(-1)?.end === length;
  const isAlike = blocks.every(
    ({ scale, isTransposed, lead }) =>
      scale === first.scale && !isTransposed && sameShape(lead, first.lead),
  );
  if (!areInOrder || !isWhole || !isAlike) return undefined;
  const others = blocks.map(({ masks }, at) => {
    const { start, end } = queries[at] as Taken;
    const rows = { start, count: end - start, keys: (keys[at] as Taken).end };
    return masks.filter((mask) => !written.hidden.isCausal(mask, rows));
  });
  const isCausal = blocks.every(({ masks }, at) => (others[at]?.length ?? 0) < masks.length);
  const masks = isCausal
    ? sharedMasks(graph, others, { queries, keys, length }, written)
    : undefined;
  if (masks === undefined) return undefined;
  const sources = { q: sourceOf(queries), k: sourceOf(keys), v: sourceOf(values) };
  return { ...first, ...sources, forms: first, output, masks, isCausal };
}

/** The masks of which each block has its part. */
function sharedMasks(
  graph: Graph,
  blocks: readonly (readonly Mask[])[],
  of: {
    readonly queries: readonly Taken[];
    readonly keys: readonly Taken[];
    readonly length: number;
  },
  written: WrittenAttention,
): readonly Mask[] | undefined {
  const shared: Mask[] = [];
  for (let at = 0; at < Math.max(...blocks.map((own) => own.length)); at++) {
    const sources = blocks.map((own, block) => {
      const mask = own[at];
      if (mask?.kind !== "added") return undefined;
      const columns = written.taken(mask.value, -1);
      const { start, end } = of.queries[block] as Taken;
      const rows = written.taken(columns.source, -2);
      const isColumns = columns.start === 0 && columns.end === of.keys[block]?.end;
      const isOne = rows.start === 0 && rows.end === 1;
      const isRows = isOne || (rows.start === start && rows.end === end);
      return isColumns && isRows ? rows.source : undefined;
    });
    const [source] = sources;
    if (source === undefined || sources.some((own) => own !== source)) return undefined;
    const { shape } = typeOf(graph, source);
    const rows = shape.at(-2) ?? 1;
    if (shape.at(-1) !== of.length || (rows !== 1 && rows !== of.length)) return undefined;
    shared.push({ kind: "added", value: source });
  }
  return shared;
}

/** The graph in which some values are made in another way. */
function replaced(graph: Graph, ways: ReadonlyMap<string, Made>): Graph {
  const builder = builderLike(graph);
  return remade(graph, builder, ({ name, outputs: [output = ""] }) => {
    const way = ways.get(output);
    if (way === undefined) return undefined;
    return (valueOf) => {
      const result = builder.within(name, () => way(valueOf));
      return builder.append("Identity", name, [result], {}, [output]);
    };
  });
}

function ringOf(graph: Graph, whole: Whole, valueOf: (name: string) => Value): Value {
  const { lead, scale, isCausal, isTransposed, masks, forms } = whole;
  const matrices = (part: "q" | "k" | "v"): Value => {
    const value = valueOf(whole[part]);
    const own = typeOf(graph, forms[part]).shape.slice(0, -2);
    const isAll = elementCount(own) === elementCount(lead);
    return reshape(value, [...(isAll ? lead : own), ...value.shape.slice(-2)]);
  };
  const k = matrices("k");
  const inputs = [matrices("q"), isTransposed ? swapLast(k) : k, matrices("v")];
  const added = masks.map((mask) => addedOf(mask, valueOf, k.dtype));
  const mask = added.length === 0 ? [] : [added.reduce((sum, other) => add(sum, other))];
  const attributes = { scale, causal: isCausal ? 1 : 0 };
  const [made] = k.builder.emit(RING, [...inputs, ...mask], attributes);
  return reshape(made as Value, typeOf(graph, whole.output).shape);
}

function addedOf(mask: Mask, valueOf: (name: string) => Value, dtype: DType): Value {
  if (mask.kind === "added") return valueOf(mask.value);
  const condition = valueOf(mask.condition);
  const [by, none] = [mask.by, 0].map((number) => condition.builder.scalar(dtype, number)) as [
    Value,
    Value,
  ];
  return mask.where ? where(condition, by, none) : where(condition, none, by);
}
