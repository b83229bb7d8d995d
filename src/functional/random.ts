/**
 * Random numbers as graphs. Each number is a function of a key and of its position only (Salmon et
 * al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so no engine, thread or division of the
 * work changes it. Only Add, Mul and Div of int32 are used: they wrap in the same way everywhere,
 * and every engine has them.
 */
import { assert } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { type DType, elementCount, type Shape } from "../tensor/index.ts";
import { add, cast, cos, div, less, mul, sin, sqrt, sub } from "./elementwise.ts";
import { concat, range, reshape, slice } from "./layout.ts";

/**
 * A number of 32 bits from which a whole tensor is drawn: an int32 value of shape `[]` or `[1]`, or
 * a number known in advance.
 */
export type RandomKey = Value | number;

/** The odd integer next to 2³² / golden ratio: multiples of it are evenly spread. */
const GOLDEN = 0x9e3779b9 | 0;
const HALF = 2 ** 16;

/**
 * One round of mixing 32 bits: x (2x + 1), a permutation whose high bits depend on all lower bits
 * (as in the cipher RC6); then the halves are exchanged, so that the low bits depend on the high
 * ones. Division rounds towards zero, so the exchange is off by one for a negative number, which
 * does no harm here.
 */
function round(x: Value): Value {
  const square = mul(x, add(mul(x, 2), 1));
  return add(mul(square, HALF), div(square, HALF));
}

/** Three rounds of mixing, enough for the result to look random after any change of x. */
function mix(x: Value): Value {
  const first = round(add(x, GOLDEN));
  const second = round(add(first, GOLDEN));
  return round(add(second, GOLDEN));
}

/**
 * Derives keys (int32, any shape) of another stream, for example one for each layer from the key of
 * each sample.
 */
export function foldIn(key: Value, stream: number): Value {
  assert(Number.isInteger(stream), "streams are counted in integers");
  return mix(add(mix(key), Math.imul(stream, GOLDEN)));
}

/**
 * Int32 numbers with 32 random bits each.
 * @param start int32 `[]` or `[1]`: the position of the first number among those of the key.
 * Default: 0
 */
export function randomBits(
  builder: GraphBuilder,
  shape: Shape,
  key: RandomKey,
  start?: Value,
): Value {
  const given = typeof key === "number" ? builder.scalar("int32", key | 0) : reshape(key, []);
  const count = elementCount(shape);
  // Two small ranges are used instead of a large one, so that the constants that engines fold into
  // a session stay small.
  const columns = Math.min(count, 4096);
  const rows = Math.ceil(count / columns);
  const down = range(builder, "int32", 0, rows);
  const across = mul(range(builder, "int32", 0, columns), GOLDEN);
  const own = foldIn(given, 1);
  const base = start === undefined ? own : add(own, mul(reshape(start, []), GOLDEN));
  const starts = add(mul(down, Math.imul(columns, GOLDEN)), base);
  const places = add(reshape(starts, [rows, 1]), reshape(across, [1, columns]));
  // The key is added again between rounds, so that no two keys give the same sequence at shifted
  // positions.
  const again = add(round(round(places)), foldIn(given, 2));
  const bits = round(add(round(again), GOLDEN));
  return reshape(first(reshape(bits, [rows * columns]), count), shape);
}

/** The first `count` elements of a vector. */
function first(vector: Value, count: number): Value {
  if (vector.shape[0] === count) return vector;
  return slice(vector, [{ axis: 0, start: 0, end: count }]);
}

export interface UniformOptions {
  readonly low?: number;
  readonly high?: number;
  readonly dtype?: DType;
  /**
   * Int32 `[]` or `[1]`: the position of the first number among those of the key, so that a tensor
   * can be drawn in pieces. Default: 0.
   */
  readonly start?: Value;
}

/** Uniform random numbers in [low, high), drawn with 24 bits in float32. Default: [0, 1). */
export function uniform(
  builder: GraphBuilder,
  shape: Shape,
  key: RandomKey,
  { low = 0, high = 1, dtype = "float32", start }: UniformOptions = {},
): Value {
  const unit = toUnit(randomBits(builder, shape, key, start));
  const scaled = low === 0 && high === 1 ? unit : add(mul(unit, high - low), low);
  return cast(scaled, dtype);
}

/** Converts int32 bits to float32 multiples of 2⁻²⁴ in [0, 1); every step is exact. */
function toUnit(bits: Value): Value {
  return add(mul(cast(div(bits, 256), "float32"), 2 ** -24), 0.5);
}

export interface NormalOptions {
  readonly mean?: number;
  readonly standardDeviation?: number;
  readonly dtype?: DType;
}

/**
 * Normally distributed numbers (Box & Muller 1958), computed in float32. Default: mean 0, standard
 * deviation 1.
 */
export function normal(
  builder: GraphBuilder,
  shape: Shape,
  key: RandomKey,
  options: NormalOptions = {},
): Value {
  const count = elementCount(shape);
  const pairs = pairsOf(count);
  const unit = toUnit(randomBits(builder, [2, pairs], key));
  const row = (index: number) => slice(unit, [{ axis: 0, start: index, end: index + 1 }]);
  const both = concat(normalPairs(row(0), row(1)), 0);
  return scaledNormal(reshape(first(reshape(both, [2 * pairs]), count), shape), options);
}

/**
 * The same numbers as those of `normal` in a vector of `count` elements, in two pieces: elements
 * that follow each other, and those that lie half a vector behind them. The second piece is shorter
 * where the vector ends, and left out where it would be empty.
 * @param from int32 `[1]`: the position of the first element
 * @param behind int32 `[1]`: the same plus `pairsOf(count)`
 * @param sizes the elements of both pieces
 */
export function normalPieces(
  key: Value,
  from: Value,
  behind: Value,
  sizes: readonly [number, number],
  options: NormalOptions = {},
): Value[] {
  const [size, short] = sizes;
  const draw = (start: Value) => uniform(key.builder, [size], key, { start });
  const [near, far] = normalPairs(draw(from), draw(behind));
  const drawn = short === 0 ? [near] : [near, first(far, short)];
  return drawn.map((piece) => scaledNormal(piece, options));
}

/** The number of pairs of numbers of which `normal` draws `count`. */
export function pairsOf(count: number): number {
  return Math.ceil(count / 2);
}

function scaledNormal(
  drawn: Value,
  { mean = 0, standardDeviation = 1, dtype = "float32" }: NormalOptions,
): Value {
  const scaled = standardDeviation === 1 ? drawn : mul(drawn, standardDeviation);
  return cast(mean === 0 ? scaled : add(scaled, mean), dtype);
}

/**
 * Two independent tensors of normally distributed numbers from two of uniform numbers in [0, 1).
 */
export function normalPairs(first: Value, second: Value): [Value, Value] {
  const radius = sqrt(mul(minusLog(sub(1, first)), 2));
  const angle = mul(second, 2 * Math.PI);
  return [mul(radius, cos(angle)), mul(radius, sin(angle))];
}

/**
 * -ln u for u in [2⁻²⁴, 1], made of exactly rounded operations only: -64 ln v for v = u^(1/64), and
 * -ln v = 2 artanh t for t = (1 - v) / (1 + v), by three terms of its series. ONNX Runtime's own
 * Log gives different last bits where the parts of two threads meet.
 */
function minusLog(u: Value): Value {
  let v = u;
  for (let halving = 0; halving < 6; halving++) v = sqrt(v);
  const t = div(sub(1, v), add(v, 1));
  const q = mul(t, t);
  const series = add(mul(q, add(mul(q, 1 / 5), 1 / 3)), 1);
  return mul(mul(t, series), 128);
}

/**
 * Zeroes elements with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et
 * al. 2014). The mask depends only on the key of each sample: not on the rank, the division of the
 * batch, threads or engine.
 * @param key int32 [batch]; the elements of `x`, batch outermost, are divided evenly among the keys
 */
export function dropout(x: Value, rate: number, key: Value): Value {
  assert(rate >= 0 && rate < 1, `a dropout rate in [0, 1), not ${rate}`);
  if (rate === 0) return x;
  const samples = elementCount(key.shape);
  const each = elementCount(x.shape) / samples;
  assert(Number.isInteger(each), `${samples} keys divide the elements of x`);
  const keep = less(dropoutBits(key, samples, each), Math.round((1 - rate) * 2 ** 32) - 2 ** 31);
  const mask = mul(cast(keep, x.dtype), 1 / (1 - rate));
  return mul(x, reshape(mask, x.shape));
}

/**
 * Int32 [samples, each] whose high bits are random: z (2z + 1) for z = position + key, both mixed.
 * It takes three passes over memory; the part that depends on the position only is folded when the
 * graph is compiled.
 */
function dropoutBits(key: Value, samples: number, each: number): Value {
  const place = randomBits(key.builder, [1, each], 1);
  const mixed = reshape(mix(key), [samples, 1]);
  return mul(add(place, mixed), add(add(mul(place, 2), 1), mul(mixed, 2)));
}
