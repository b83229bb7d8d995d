/**
 * Multi-head attention (Vaswani et al. 2017), optionally with fewer heads for keys and values
 * (grouped-query, Ainslie et al. 2023). One product computes queries, keys and values; one
 * transposition puts heads first, so that splitting them copies whole blocks and the products of
 * attention run over contiguous matrices.
 */
import {
  add,
  concat,
  matmul,
  mul,
  reshape,
  slice,
  softmax,
  split,
  transpose,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { anything, finite, flag, type OptionKinds, positive, rate } from "../../options.ts";
import { formatShape } from "../../tensor/index.ts";
import { fanIn } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";
import { dropoutOfHeads } from "./dropout.ts";
import { linear } from "./linear.ts";
import { causalMask, rotate } from "./positions.ts";

/**
 * Measured for a context of 256 (`npm run bench -- step`): one twelfth more tokens/s than a single
 * block.
 */
const QUERY_BLOCK = 128;

export interface AttentionOptions {
  readonly heads: number;
  /** The number of heads of keys and values; a divisor of `heads`. Default: `heads`. */
  readonly kvHeads?: number;
  /** Whether a position attends only to itself and those before it. Default: false. */
  readonly causal?: boolean;
  /** The base of rotary positions. Default: no rotary positions. */
  readonly rotaryBase?: number;
  /**
   * A value that is added to the scores; it broadcasts to (batch, heads, queries, keys). See
   * `additiveMask`.
   */
  readonly mask?: Value;
  /** The dropout rate of the attention weights. Default: 0. */
  readonly dropout?: number;
  /** Default: true. */
  readonly bias?: boolean;
  /** The initializer of `qkv`. Default: that of `linear`. */
  readonly initializer?: Initializer;
  /** The initializer of `out`. Default: that of `linear`. */
  readonly outInitializer?: Initializer;
  readonly biasInitializer?: Initializer;
  /**
   * With `causal`, the number of queries of a block; each block is computed against the keys up to
   * its end. That saves work on what the mask hides, but needs more and smaller operators. Default:
   * 128 for a length of 256 and more, otherwise all queries at once.
   */
  readonly queryBlock?: number;
}

/** The schemas of the options of attention. */
const ATTENTION_OPTIONS: OptionKinds<AttentionOptions> = {
  heads: finite,
  kvHeads: finite.optional(),
  causal: flag.optional(),
  rotaryBase: positive.optional(),
  mask: anything.optional(),
  dropout: rate.optional(),
  bias: flag.optional(),
  initializer: initial,
  outInitializer: initial,
  biasInitializer: initial,
  queryBlock: finite.optional(),
};

/**
 * Self-attention of `x` (batch, length, width) → the same shape. Parameters: `qkv.weight` [width,
 * (heads + 2·kvHeads) · width/heads], columns in the order queries, keys, values, each by head;
 * `qkv.bias`; `out.weight`, `out.bias`.
 */
export function attention(scope: Scope, x: Value, options: AttentionOptions): Value {
  checkLayer(scope, "attention", options, ATTENTION_OPTIONS);
  return scope.within(() => {
    const [batch, length, width] = checkedShape(scope, x, options);
    const { heads, kvHeads = heads, bias = true } = options;
    const { initializer = fanIn(width), outInitializer = fanIn(width) } = options;
    const { biasInitializer = fanIn(width) } = options;
    const size = width / heads;
    const outputs = (heads + 2 * kvHeads) * size;
    const qkv = linear(scope.child("qkv"), x, { outputs, bias, initializer, biasInitializer });
    // (heads of q, k, v; batch; length; size)
    const stacked = transpose(
      reshape(qkv, [batch, length, heads + 2 * kvHeads, size]),
      [2, 0, 1, 3],
    );
    const [queries, keys, values] = splitHeads(scope, stacked, heads, kvHeads, options.rotaryBase);
    const mixed = attend(scope, queries, keys, values, options);
    const rows = reshape(transpose(mixed, [1, 2, 0, 3]), [batch, length, width]);
    const out = { outputs: width, bias, initializer: outInitializer, biasInitializer };
    return linear(scope.child("out"), rows, out);
  });
}

/** Queries, scaled by 1/√size, keys and values, each (heads, batch, length, size). */
function splitHeads(
  scope: Scope,
  stacked: Value,
  heads: number,
  kvHeads: number,
  rotaryBase: number | undefined,
): [Value, Value, Value] {
  const size = stacked.shape.at(-1) as number;
  const [queries, keys, values] = split(stacked, [heads, kvHeads, kvHeads], 0) as [
    Value,
    Value,
    Value,
  ];
  const placed = (x: Value): Value => (rotaryBase === undefined ? x : rotate(scope, x, rotaryBase));
  return [mul(placed(queries), 1 / Math.sqrt(size)), placed(keys), values];
}

/** softmax(q · kᵀ + mask) · v over groups of heads → (heads, batch, length, size). */
function attend(
  scope: Scope,
  queries: Value,
  keys: Value,
  values: Value,
  options: AttentionOptions,
): Value {
  const [heads, batch, length, size] = queries.shape as [number, number, number, number];
  const kvHeads = keys.shape[0] as number;
  const grouped = heads !== kvHeads;
  // With groups, the heads that share keys have a dim of their own: (kvHeads, group, batch, length,
  // size).
  const group = (x: Value, count: number): Value =>
    grouped ? reshape(x, [kvHeads, count, batch, length, size]) : x;
  const q = group(queries, heads / kvHeads);
  const k = group(keys, 1);
  const v = group(values, 1);
  const mask = options.mask === undefined ? undefined : headsFirst(scope, options.mask);
  const causal = options.causal === true;
  const usual = length >= 2 * QUERY_BLOCK ? QUERY_BLOCK : length;
  const block = causal ? Math.min(options.queryBlock ?? usual, length) : length;
  const parts: Value[] = [];
  for (let start = 0; start < length; start += block) {
    const end = Math.min(start + block, length);
    const visible = causal ? end : length;
    let scores = matmul(range(q, -2, start, end), range(k, -2, 0, visible), { transB: true });
    if (causal) {
      scores = add(scores, causalMask(scope, { rows: end - start, columns: visible, start }));
    }
    if (mask !== undefined) {
      const rows = mask.shape[2] === 1 ? mask : range(mask, -2, start, end);
      scores = add(scores, range(rows, -1, 0, visible));
    }
    const weights = dropoutOfHeads(scope, softmax(scores), options.dropout ?? 0);
    parts.push(matmul(weights, range(v, -2, 0, visible)));
  }
  return reshape(concat(parts, -2), [heads, batch, length, size]);
}

function range(x: Value, axis: number, start: number, end: number): Value {
  if (start === 0 && end === x.shape.at(axis)) return x;
  return slice(x, [{ axis, start, end }]);
}

/** A mask (batch, heads, queries, keys) with the dims of our scores. */
function headsFirst(scope: Scope, mask: Value): Value {
  if (mask.shape.length !== 4) {
    scope.fail(
      `a mask must have dims (batch, heads, queries, keys), got ${formatShape(mask.shape)}`,
      "Use size 1 for dims that it does not depend on.",
    );
  }
  return transpose(mask, [1, 0, 2, 3]);
}

function checkedShape(
  scope: Scope,
  x: Value,
  { heads, kvHeads = heads, mask, queryBlock }: AttentionOptions,
): [number, number, number] {
  const [batch, length, width] = x.shape;
  if (batch === undefined || length === undefined || width === undefined || x.shape.length !== 3) {
    return scope.fail(`expected an input (batch, length, width), got ${formatShape(x.shape)}`);
  }
  if (!Number.isInteger(heads) || heads < 1 || width % heads !== 0) {
    const near = Math.max(1, Math.round(width / Math.max(1, heads))) * Math.max(1, heads);
    scope.fail(
      `a width of ${width} does not divide into ${heads} heads`,
      `Set width to a multiple of heads, such as ${near}.`,
    );
  }
  if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) {
    scope.fail(
      `${heads} heads cannot share ${kvHeads} heads of keys and values`,
      "Set kvHeads to a divisor of heads.",
    );
  }
  if (mask !== undefined && heads !== kvHeads && mask.shape[1] !== 1) {
    scope.fail("a mask that differs between heads does not go with grouped heads");
  }
  if (queryBlock !== undefined && (!Number.isInteger(queryBlock) || queryBlock < 1)) {
    scope.fail(`a queryBlock of ${queryBlock}`, "Set it to a whole number above 0.");
  }
  return [batch, length, width];
}
