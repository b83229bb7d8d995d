/**
 * What a rank computes of attention whose keys and values go round a ring (Liu et al., "Ring
 * Attention with Blockwise Transformers", 2023): block by block of its queries, against the keys of
 * one rank after the other. A running maximum and sum take the place of the whole rows of scores
 * (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018).
 */
import {
  add,
  concat,
  div,
  exp,
  log,
  matmul,
  maximum,
  mul,
  pad,
  reduceMax,
  reduceSum,
  split,
  squeeze,
  sub,
  sumTo,
  swapLast,
  unsqueeze,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { type DType, sameShape } from "../../tensor/index.ts";
import {
  Bias,
  blocksOf,
  columns,
  type Ring,
  type RingOptions,
  type RingParts,
  rows,
  scaled,
} from "./ring-blocks.ts";

/** A number below every score: the maximum of keys that a mask of −∞ hides. */
function lowestOf(dtype: DType): number {
  return dtype === "float16" ? -6e4 : -1e37;
}

/** The result for a block as far as it has seen keys. */
interface Running {
  readonly most: Value;
  readonly sum: Value;
  readonly result: Value;
}

function joined(before: Running | undefined, scores: Value, values: Value): Running {
  const { dtype, builder } = scores;
  const own = reduceMax(scores, { axes: [-1] });
  const most = maximum(before?.most ?? builder.scalar(dtype, lowestOf(dtype)), own);
  const weights = exp(sub(scores, most));
  const sum = reduceSum(weights, { axes: [-1] });
  const result = matmul(weights, values);
  if (before === undefined) return { most, sum, result };
  const factor = exp(sub(before.most, most));
  return {
    most,
    sum: add(mul(before.sum, factor), sum),
    result: add(mul(before.result, factor), result),
  };
}

/** The result of attention, and the logarithm of the sum of the exponentials of each row of scores. */
export function ringAttention(parts: RingParts, options: RingOptions): [Value, Value] {
  const { ring, scale } = options;
  const q = scaled(parts.q, scale);
  const blocks = blocksOf(parts, options);
  const bias = new Bias(parts, options);
  const running: (Running | undefined)[] = blocks.map(() => undefined);
  let [k, v] = [parts.k, parts.v];
  for (let turn = 0; turn < ring.ranks; turn++) {
    if (turn > 0) {
      [k, v] = [ring.shift(k), ring.shift(v)];
      bias.next();
    }
    const transposed = swapLast(k);
    for (const [index, block] of blocks.entries()) {
      const product = matmul(rows(q, block.start, block.end), columns(transposed, block.keys));
      const scores = bias.addTo(product, block, turn);
      running[index] = joined(running[index], scores, rows(v, 0, block.keys));
    }
  }
  const done = running as Running[];
  const results = done.map(({ result, sum }) => div(result, sum));
  const sums = done.map(({ most, sum }) => add(most, log(sum)));
  return [concat(results, -2), concat(sums, -2)];
}

export interface RingGradientParts extends RingParts {
  readonly y: Value;
  /** Of each row of scores: the logarithm of the sum of exponentials. */
  readonly sums: Value;
  readonly dy: Value;
}

/**
 * The gradients of queries, keys and values (Dao et al., "FlashAttention", 2022). Scores are computed
 * again. The gradients of a rank's keys and values go round with them, and come home at the end.
 */
export function ringGradient(
  parts: RingGradientParts,
  options: RingOptions,
): [dq: Value, dk: Value, dv: Value] {
  const { ring, scale } = options;
  const { y, sums } = parts;
  // Scores are computed again when their gradient is there: they would have to be kept until then.
  const [given, dy] = ring.ranks > 1 ? together(parts.q, parts.dy) : [parts.q, parts.dy];
  const q = scaled(given, scale);
  const blocks = blocksOf(parts, options);
  const bias = new Bias(parts, options);
  const rowSums = reduceSum(mul(y, dy), { axes: [-1] });
  const dq: (Value | undefined)[] = blocks.map(() => undefined);
  // Transposed, so that no matrix of scores has to be: (…, size, keys).
  let [k, v] = [swapLast(parts.k), swapLast(parts.v)];
  let [dk, dv]: [Value | undefined, Value | undefined] = [undefined, undefined];
  for (let turn = 0; turn < ring.ranks; turn++) {
    if (turn > 0) {
      [k, dk, v, dv] = shiftedTogether(ring, [k, dk as Value, v, dv as Value]);
      bias.next();
    }
    for (const [index, block] of blocks.entries()) {
      const own = (x: Value) => rows(x, block.start, block.end);
      const keys = columns(k, block.keys);
      const scores = bias.addTo(matmul(own(q), keys), block, turn);
      const weights = exp(sub(scores, own(sums)));
      const dWeights = matmul(own(dy), columns(v, block.keys));
      const dScores = mul(weights, sub(dWeights, own(rowSums)));
      dq[index] = sumOf(dq[index], matmul(dScores, swapLast(keys)));
      dk = withColumns(dk, matmul(swapLast(own(q)), dScores), k);
      dv = withColumns(dv, matmul(swapLast(own(dy)), weights), v);
    }
  }
  const home = (x: Value) => swapLast(ring.ranks > 1 ? ring.shift(x) : x);
  return [scaled(concat(dq as Value[], -2), scale), home(dk as Value), home(dv as Value)];
}

/** Two values of as many rows, the first of which is not there before the second. */
function together(one: Value, other: Value): [Value, Value] {
  const sizes = [one, other].map(({ shape }) => shape.at(-1) as number);
  return split(concat([one, other], -1), sizes, -1) as [Value, Value];
}

function sumOf(sum: Value | undefined, term: Value): Value {
  return sum === undefined ? term : add(sum, term);
}

/** Adds a term that has the first columns only, and a dim for all that share keys. */
function withColumns(sum: Value | undefined, term: Value, like: Value): Value {
  const width = term.shape.at(-1) as number;
  const missing = (like.shape.at(-1) as number) - width;
  const own = sumTo(term, like.shape.with(-1, width));
  const none = like.shape.map(() => 0);
  return sumOf(sum, missing === 0 ? own : pad(own, none, none.with(-1, missing)));
}

/**
 * Values of one shape go as one. So keys do not go before their gradients are there: they would have
 * to be kept until then.
 */
function shiftedTogether(
  ring: Ring,
  [k, dk, v, dv]: readonly [Value, Value, Value, Value],
): [Value, Value, Value, Value] {
  const shifted = (values: readonly Value[]) => {
    const all = concat(
      values.map((value) => unsqueeze(value, [0])),
      0,
    );
    const sizes = values.map(() => 1);
    return split(ring.shift(all), sizes, 0).map((value) => squeeze(value, [0]));
  };
  if (sameShape(k.shape, v.shape)) {
    return shifted([k, dk, v, dv]) as [Value, Value, Value, Value];
  }
  return [...shifted([k, dk]), ...shifted([v, dv])] as [Value, Value, Value, Value];
}
