/** Finds where the samples of a batch lie in a value. */
import type { Graph, Node } from "../graph/index.ts";
import { elementCount, type Shape, toNumbers } from "../tensor/index.ts";

/** The samples lie in dim `dim`, whose size is outer · batch · inner. */
export interface Place {
  readonly dim: number;
  readonly outer: number;
  readonly inner: number;
}

/**
 * The places that the batch can have after a Reshape, which keeps the order of all elements: the
 * same number of elements lies before it. The place is unique unless the batch is one sample. The
 * likelier places come first.
 */
export function moved(before: Shape, place: Place, after: Shape, from: number): Place[] {
  const left = elementCount(before.slice(0, place.dim)) * place.outer;
  const right = elementCount(before.slice(place.dim + 1)) * place.inner;
  const candidates = after.flatMap((_, dim): Place[] => {
    const outer = left / elementCount(after.slice(0, dim));
    const inner = right / elementCount(after.slice(dim + 1));
    const fits = Number.isInteger(outer) && Number.isInteger(inner);
    return fits && outer * from * inner === after[dim] ? [{ dim, outer, inner }] : [];
  });
  // One sample fits many places. Exporters leave it where it was, and in a dim of its own if they
  // can.
  const rank = ({ dim, outer, inner }: Place) =>
    (outer * inner === 1 ? 0 : 2) + (dim === place.dim ? 0 : 1);
  return candidates.sort((a, b) => rank(a) - rank(b));
}

/**
 * The dims of the first input along which an operator mixes elements although its result is as
 * large: all dims `from` this one on, or one `axis`.
 */
type Mixing = { readonly from: number } | { readonly axis: number };

const WINDOW: Mixing = { from: 2 };
const MIXING: Readonly<Record<string, Mixing>> = {
  Softmax: { axis: -1 },
  LogSoftmax: { axis: -1 },
  Hardmax: { axis: -1 },
  LpNormalization: { axis: -1 },
  CumSum: { axis: 0 },
  LayerNormalization: { from: -1 },
  RMSNormalization: { from: -1 },
  GroupNormalization: { from: 1 },
  InstanceNormalization: WINDOW,
  LRN: { from: 1 },
  Conv: WINDOW,
  ConvTranspose: WINDOW,
  MaxPool: WINDOW,
  AveragePool: WINDOW,
  LpPool: WINDOW,
  Resize: WINDOW,
  Attention: { from: 1 },
};

/**
 * Whether a node that reads the batch in dim `dim` of its first input makes the result of one
 * sample depend on others.
 */
export function mixesSamples(
  { op, inputs, attributes }: Pick<Node, "op" | "inputs" | "attributes">,
  dim: number,
  rank: number,
  constants: Graph["constants"],
): boolean {
  const mixing = MIXING[op];
  if (mixing === undefined) return false;
  const input = op === "CumSum" ? constants.get(inputs[1] ?? "") : undefined;
  const told = input === undefined ? attributes["axis"]?.value : toNumbers(input)[0];
  const first = "from" in mixing ? mixing.from : mixing.axis;
  const at = typeof told === "number" ? told : first;
  const own = at < 0 ? at + rank : at;
  return "from" in mixing ? dim >= own : dim === own;
}
