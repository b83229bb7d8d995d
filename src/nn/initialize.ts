/**
 * Initial values. They depend only on the seed and the name of the parameter, so every worker makes
 * the same values, in any order, and a model that gains a layer keeps the values of the others.
 * Random values are graphs for the engine.
 */
import { full, normalPieces, pairsOf, uniform } from "../functional/index.ts";
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { elementCount, type Tensor, type TensorType, tensorFrom } from "../tensor/index.ts";
import type { Initializer } from "./model.ts";

/** An initial value: the tensor itself, or graphs that make it piece by piece. */
export type InitialValue =
  | { readonly kind: "tensor"; readonly tensor: Tensor }
  | { readonly kind: "pieces"; readonly pieces: readonly InitialPiece[] };

/** A graph whose outputs are pieces of a tensor. Pieces of one size have the same graph. */
export interface InitialPiece {
  readonly graph: Graph;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** The elements of the tensor, which counts as flat, that each output of the graph holds. */
  readonly parts: readonly ElementRange[];
}

/** The elements [start, end) of a tensor. */
export interface ElementRange {
  readonly start: number;
  readonly end: number;
}

/**
 * The most elements of an output of a piece. A piece takes some intermediate values of that size;
 * made whole, a large tensor would take them in its own size, and the engine would keep that
 * memory. It is a multiple of every vector register, so that pieces have the bits of the whole.
 */
const PIECE = 2 ** 16;

/**
 * Graphs that were made already, by all that they depend on: equal layers share them, and so do the
 * models of a process.
 */
const graphs = new Map<string, Graph>();
const MOST_GRAPHS = 256;

/**
 * Makes the initial value of a parameter or state. The graphs depend on type and initializer only.
 */
export function initialValue(
  { name, type, initializer }: { name: string; type: TensorType; initializer: Initializer },
  seed: number,
): InitialValue {
  if (initializer.kind === "tensor") return { kind: "tensor", tensor: initializer.tensor };
  const key = tensorFrom("int32", [1], [initialKey(seed, name)]);
  const count = elementCount(type.shape);
  const pieces =
    initializer.kind === "normal"
      ? normalValue(initializer, type, { count, key })
      : evenValue(initializer, type, { count, key });
  return { kind: "pieces", pieces };
}

/** What a value is made of, besides its type and initializer. */
interface Making {
  /** Of elements. */
  readonly count: number;
  readonly key: Tensor;
}

type Kind<K extends Initializer["kind"]> = Extract<Initializer, { kind: K }>;

/** The first half of a vector of normally distributed numbers is drawn together with the second. */
function normalValue(
  initializer: Kind<"normal">,
  { dtype }: TensorType,
  { count, key }: Making,
): InitialPiece[] {
  const pairs = pairsOf(count);
  const options = { ...initializer, dtype };
  const { standardDeviation, mean } = initializer;
  const numbers = [standardDeviation, mean ?? 0];
  const graphOf = cached(`normal ${dtype}`, numbers, (size = 0, short = 0) => {
    const builder = newBuilder("initial normal");
    const [drawn, from, behind] = (["key", "from", "behind"] as const).map((input) =>
      builder.input(input, INDEX),
    ) as [Value, Value, Value];
    return builder.build(normalPieces(drawn, from, behind, [size, short], options));
  });
  return rangesOf(pairs).map(({ start, end }): InitialPiece => {
    const behind = { start: pairs + start, end: Math.min(count, pairs + end) };
    return {
      graph: graphOf(end - start, behind.end - behind.start),
      inputs: { key, from: index(start), behind: index(behind.start) },
      parts: behind.start === behind.end ? [{ start, end }] : [{ start, end }, behind],
    };
  });
}

/** Each element by itself. */
function evenValue(
  initializer: Kind<"zeros" | "ones" | "constant" | "uniform">,
  { dtype }: TensorType,
  { count, key }: Making,
): InitialPiece[] {
  const { kind } = initializer;
  const numbers =
    kind === "uniform" ? [initializer.low, initializer.high] : [constantOf(initializer)];
  const graphOf = cached(`${kind} ${dtype}`, numbers, (size = 0) => {
    const builder = newBuilder(`initial ${initializer.kind}`);
    if (initializer.kind !== "uniform") {
      return builder.build([full(builder, dtype, [size], constantOf(initializer))]);
    }
    const drawn = builder.input("key", INDEX);
    const start = builder.input("from", INDEX);
    return builder.build([uniform(builder, [size], drawn, { ...initializer, dtype, start })]);
  });
  return rangesOf(count).map((range): InitialPiece => {
    const { start, end } = range;
    const inputs = initializer.kind === "uniform" ? { key, from: index(start) } : {};
    return { graph: graphOf(end - start), inputs, parts: [range] };
  });
}

function constantOf(initializer: Kind<"zeros" | "ones" | "constant">): number {
  if (initializer.kind === "constant") return initializer.value;
  return initializer.kind === "ones" ? 1 : 0;
}

const INDEX: TensorType = { dtype: "int32", shape: [1] };

/** Positions wrap as those within a graph do. */
function index(position: number): Tensor {
  return tensorFrom("int32", [1], [position | 0]);
}

function rangesOf(count: number): ElementRange[] {
  return Array.from({ length: Math.ceil(count / PIECE) }, (_, at) => {
    return { start: at * PIECE, end: Math.min(count, (at + 1) * PIECE) };
  });
}

/** Makes a graph once for each size of a piece. `numbers`: what else it depends on. */
function cached(
  what: string,
  numbers: readonly number[],
  make: (...sizes: number[]) => Graph,
): (...sizes: number[]) => Graph {
  const words = numbers.map((number) => (Object.is(number, -0) ? "-0" : String(number)));
  return (...sizes) => {
    const name = [what, ...words, ...sizes].join(" ");
    const known = graphs.get(name);
    if (known !== undefined) return known;
    const graph = make(...sizes);
    if (graphs.size >= MOST_GRAPHS) graphs.clear();
    graphs.set(name, graph);
    return graph;
  };
}

/**
 * A key of 32 bits from the seed and a name: FNV-1a over the name's UTF-16 units, then the
 * finalizer of MurmurHash3.
 */
export function initialKey(seed: number, name: string): number {
  let hash = mix(Math.floor(seed / 2 ** 32) ^ mix(seed | 0));
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return mix(hash);
}

function mix(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
