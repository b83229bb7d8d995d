/**
 * Random numbers as graphs: each is a function of a key and of its place alone (Salmon et al. 2011, "Parallel random
 * numbers: as easy as 1, 2, 3"), so no engine, thread or split of the work changes them. Only Add, Mul and Div of int32:
 * they wrap alike everywhere, and every engine has them.
 */
import { assert } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { type DType, elementCount, type Shape } from "../tensor/index.ts";
import { add, cast, cos, div, less, mul, sin, sqrt, sub } from "./elementwise.ts";
import { concat, range, reshape, slice } from "./layout.ts";

/** One number of 32 bits, from which a whole tensor is drawn: int32, `[]` or `[1]`, or known in advance. */
export type RandomKey = Value | number;

/** The odd integer next to 2³² / golden ratio: multiples of it are spread evenly. */
const GOLDEN = 0x9e3779b9 | 0;
const HALF = 2 ** 16;

/**
 * One round of mixing 32 bits: x (2x + 1), a permutation whose high bits depend on all below them (as in the cipher
 * RC6), then the halves change places, so that the low bits depend on the high ones. Division is towards zero, which
 * makes the exchange of a negative number miss by one: as good for this purpose.
 */
function round(x: Value): Value {
  const square = mul(x, add(mul(x, 2), 1));
  return add(mul(square, HALF), div(square, HALF));
}

/** Three rounds: as good as random for any change of x. */
function mix(x: Value): Value {
  const first = round(add(x, GOLDEN));
  const second = round(add(first, GOLDEN));
  return round(add(second, GOLDEN));
}

/** Keys (int32, any shape) of another stream: one for each layer, say, from one for each sample. */
export function foldIn(key: Value, stream: number): Value {
  assert(Number.isInteger(stream), "streams are counted in integers");
  return mix(add(mix(key), Math.imul(stream, GOLDEN)));
}

/** Int32 numbers, all of whose 32 bits are random. */
export function randomBits(builder: GraphBuilder, shape: Shape, key: RandomKey): Value {
  const given = typeof key === "number" ? builder.scalar("int32", key | 0) : reshape(key, []);
  const count = elementCount(shape);
  // Two small ranges, not one large: what engines fold into a session stays small.
  const columns = Math.min(count, 4096);
  const rows = Math.ceil(count / columns);
  const down = range(builder, "int32", 0, rows);
  const across = mul(range(builder, "int32", 0, columns), GOLDEN);
  const starts = add(mul(down, Math.imul(columns, GOLDEN)), foldIn(given, 1));
  const places = add(reshape(starts, [rows, 1]), reshape(across, [1, columns]));
  // The key goes in again between rounds, so that no two keys give the same numbers from different places on.
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
}

/** Even in [low, high), which is [0, 1) unless told; drawn with 24 bits in float32. */
export function uniform(
  builder: GraphBuilder,
  shape: Shape,
  key: RandomKey,
  { low = 0, high = 1, dtype = "float32" }: UniformOptions = {},
): Value {
  const unit = toUnit(randomBits(builder, shape, key));
  const scaled = low === 0 && high === 1 ? unit : add(mul(unit, high - low), low);
  return cast(scaled, dtype);
}

/** Int32 bits as float32 multiples of 2⁻²⁴ in [0, 1): every step is exact. */
function toUnit(bits: Value): Value {
  return add(mul(cast(div(bits, 256), "float32"), 2 ** -24), 0.5);
}

export interface NormalOptions {
  readonly mean?: number;
  readonly standardDeviation?: number;
  readonly dtype?: DType;
}

/** Normal (Box & Muller 1958), computed in float32: mean 0 and standard deviation 1 unless told. */
export function normal(
  builder: GraphBuilder,
  shape: Shape,
  key: RandomKey,
  { mean = 0, standardDeviation = 1, dtype = "float32" }: NormalOptions = {},
): Value {
  const count = elementCount(shape);
  const pairs = Math.ceil(count / 2);
  const unit = toUnit(randomBits(builder, [2, pairs], key));
  const row = (index: number) => slice(unit, [{ axis: 0, start: index, end: index + 1 }]);
  const both = concat(normalPairs(row(0), row(1)), 0);
  const drawn = reshape(first(reshape(both, [2 * pairs]), count), shape);
  const scaled = standardDeviation === 1 ? drawn : mul(drawn, standardDeviation);
  return cast(mean === 0 ? scaled : add(scaled, mean), dtype);
}

/** Two independent tensors of normal numbers from two of numbers even in [0, 1). */
export function normalPairs(first: Value, second: Value): [Value, Value] {
  const radius = sqrt(mul(minusLog(sub(1, first)), 2));
  const angle = mul(second, 2 * Math.PI);
  return [mul(radius, cos(angle)), mul(radius, sin(angle))];
}

/**
 * -ln u for u in [2⁻²⁴, 1], of exactly rounded operations alone: -64 ln v for v = u^(1/64), and -ln v = 2 artanh t for
 * t = (1 - v) / (1 + v), by three terms of its series. ONNX Runtime's own Log has other last bits where the parts of
 * two threads meet.
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
 * Zeroes elements with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et al. 2014). The mask
 * depends on the key of each sample alone: not on the rank, the split of the batch, threads or engine.
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
 * Int32 [samples, each], of which the high bits are random: z (2z + 1) for z = place + key, both mixed. Three passes
 * over memory; what depends on the place alone is folded when the graph is compiled.
 */
function dropoutBits(key: Value, samples: number, each: number): Value {
  const place = randomBits(key.builder, [1, each], 1);
  const mixed = reshape(mix(key), [samples, 1]);
  return mul(add(place, mixed), add(add(mul(place, 2), 1), mul(mixed, 2)));
}
