/** What the ranks of an axis have after an operator of all of them, from what each of them had. */
import { type AttributeReader, type Graph, type Node, readAttributes } from "../graph/index.ts";
import { groupOf, type Mesh, sectionsOf } from "../mesh/index.ts";
import type { collective } from "../ops/collective/index.ts";
import { operators } from "../ops/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { Interpreter } from "./interpreter.ts";
import { ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor, round } from "./tensor.ts";

type Exchange = (
  values: readonly ReferenceTensor[],
  attributes: AttributeReader,
) => readonly ReferenceTensor[];

/** The part of a dim that the rank at a place of an axis has. */
export function partOf(
  { dtype, shape, data }: ReferenceTensor,
  at: { readonly dim: number; readonly sections: readonly number[] | undefined },
  place: number,
  ranks: number,
): ReferenceTensor {
  const source = positionsOf(shape[at.dim] as number, at.sections, place, ranks);
  const own = shape.with(at.dim, source.length);
  return fill(dtype, own, (index) => {
    const to = unravel(index, own);
    return data[ravel(to.with(at.dim, source[to[at.dim] as number] as number), shape)] as number;
  });
}

/** The positions along a dim that the rank at a place has, in its order. */
function positionsOf(
  size: number,
  sections: readonly number[] | undefined,
  place: number,
  ranks: number,
): number[] {
  let start = 0;
  return sectionsOf({ shard: 0, ...(sections && { sections }) }, size).flatMap((section) => {
    const each = section / ranks;
    const first = start + place * each;
    start += section;
    return Array.from({ length: each }, (_, index) => first + index);
  });
}

/** The whole of which the ranks of an axis have parts. */
export function wholeOf(
  parts: readonly ReferenceTensor[],
  { dim, sections }: { readonly dim: number; readonly sections: readonly number[] | undefined },
): ReferenceTensor {
  const [first] = parts as readonly [ReferenceTensor];
  const ranks = parts.length;
  const size = (first.shape[dim] as number) * ranks;
  const shape = first.shape.with(dim, size);
  const whole = fill(first.dtype, shape, () => 0);
  for (const [place, part] of parts.entries()) {
    const to = positionsOf(size, sections, place, ranks);
    for (let index = 0; index < part.data.length; index++) {
      const at = unravel(index, part.shape);
      const position = ravel(at.with(dim, to[at[dim] as number] as number), shape);
      whole.data[position] = part.data[index] as number;
    }
  }
  return whole;
}

/** Element by element, in the order of the ranks. */
function combined(
  values: readonly ReferenceTensor[],
  combine: (one: number, other: number) => number,
): ReferenceTensor {
  return values.reduce((sum, value) =>
    round(
      fill(sum.dtype, sum.shape, (at) => combine(sum.data[at] as number, value.data[at] as number)),
    ),
  );
}

function shardOf(attributes: AttributeReader, rank: number, prefix = "") {
  const dim = attributes.number(`${prefix}dim`);
  const sections = attributes.has(`${prefix}sections`)
    ? attributes.numbers(`${prefix}sections`)
    : undefined;
  return { dim: dim < 0 ? dim + rank : dim, sections };
}

const add = (one: number, other: number) => one + other;
const rankOf = (values: readonly ReferenceTensor[]) => values[0]?.shape.length ?? 0;

const exchanges: Record<Exclude<keyof typeof collective, "lockstep::AxisPlace">, Exchange> = {
  "lockstep::AllGather": (values, attributes) => {
    const whole = wholeOf(values, shardOf(attributes, rankOf(values)));
    return values.map(() => whole);
  },
  "lockstep::AllReduce": (values, attributes) => {
    const whole = combined(values, attributes.string("kind") === "max" ? Math.max : add);
    return values.map(() => whole);
  },
  "lockstep::AllToAll": (values, attributes) => {
    const whole = wholeOf(values, shardOf(attributes, rankOf(values)));
    const to = shardOf(attributes, rankOf(values), "to_");
    return values.map((_, place) => partOf(whole, to, place, values.length));
  },
  "lockstep::AmongZeros": (values, attributes) =>
    values.map((value, place) => {
      const others = values.map((other, at) =>
        at === place ? value : fill(other.dtype, other.shape, () => 0),
      );
      return wholeOf(others, shardOf(attributes, rankOf(values)));
    }),
  "lockstep::OnFirst": (values) =>
    values.map((value, place) => (place === 0 ? value : fill(value.dtype, value.shape, () => 0))),
  "lockstep::OwnPart": (values, attributes) =>
    values.map((value, place) =>
      partOf(value, shardOf(attributes, rankOf(values)), place, values.length),
    ),
  "lockstep::ReduceScatter": (values, attributes) => {
    const whole = combined(values, add);
    const at = shardOf(attributes, rankOf(values));
    return values.map((_, place) => partOf(whole, at, place, values.length));
  },
  "lockstep::Shift": (values) => values.map((_, place) => values.at(place - 1) as ReferenceTensor),
};

function isExchange(op: string): op is keyof typeof exchanges {
  return op in exchanges;
}

/**
 * Runs a graph on all ranks of a mesh at once: each has inputs of its own. Returns the outputs of
 * each rank by name.
 */
export function interpretRanks(
  graph: Graph,
  mesh: Mesh,
  inputs: readonly Readonly<Record<string, Tensor>>[],
): Record<string, Tensor>[] {
  const ranks = inputs.map((own) => new Interpreter(graph, own));
  for (const node of graph.nodes) {
    const { op } = node;
    if (op === "lockstep::AxisPlace") {
      for (const [rank, own] of ranks.entries()) {
        const place = axisGroup(node, mesh, rank).indexOf(rank);
        own.set(node, [fill("int64", [], () => place)]);
      }
    } else if (isExchange(op)) {
      exchangeAll(node, op, mesh, ranks);
    } else for (const own of ranks) own.run(node);
  }
  return ranks.map((own) => own.outputs());
}

function exchangeAll(
  node: Node,
  op: keyof typeof exchanges,
  mesh: Mesh,
  ranks: readonly Interpreter[],
): void {
  const done = new Set<number>();
  for (const rank of ranks.keys()) {
    if (done.has(rank)) continue;
    const group = axisGroup(node, mesh, rank);
    const values = group.map((member) =>
      (ranks[member] as Interpreter).value(node.inputs[0] ?? ""),
    );
    const attributes = readAttributes(operators[op], node.attributes, node.name);
    const results = exchanges[op](values, attributes);
    for (const [place, member] of group.entries()) {
      done.add(member);
      (ranks[member] as Interpreter).set(node, [results[place] as ReferenceTensor]);
    }
  }
}

function axisGroup(node: Node, mesh: Mesh, rank: number): number[] {
  return groupOf(mesh, [String(node.attributes["axis"]?.value)], rank);
}
