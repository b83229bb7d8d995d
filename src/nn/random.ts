/**
 * Random numbers as functions of a key and a place: a hash of (key, stream, index), in integer operators that every engine computes
 * alike. No state, no random operators: the same numbers on any machine, in any order.
 */

import {
  add,
  cast,
  cos,
  less,
  log,
  mul,
  reshape,
  sqrt,
  unsqueeze,
  where,
} from "../functional/index.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { type DType, elementCount, type Shape, tensorFrom } from "../tensor/index.ts";

export interface RandomOptions {
  /** Draws of one key with different streams are independent. */
  readonly stream: number;
  readonly dtype: DType;
}

/** Even in [0, 1), of `shape` (batch, …); row i depends on `key[i]` (int32 [batch]), the stream and the place in the row. */
export function randomUniform(key: Value, shape: Shape, { stream, dtype }: RandomOptions): Value {
  const b = key.builder;
  const row = elementCount(shape.slice(1));
  const seeds = hash(add(mul(key, 0x2c1b3c6d), (stream * 0x9e3779b1) | 0));
  const places = mul(indices(b, row), 0x297a2d39);
  const bits = hash(add(unsqueeze(seeds, [1]), unsqueeze(places, [0])));
  const fraction = mul(cast(shiftRight(bits, 8), "float32"), 2 ** -24);
  return reshape(cast(fraction, dtype), shape);
}

/** Mean 0 and deviation 1 (Box and Muller 1958); otherwise as `randomUniform`. */
export function randomNormal(key: Value, shape: Shape, { stream, dtype }: RandomOptions): Value {
  const options = { dtype: "float32" as const };
  const radius = randomUniform(key, shape, { ...options, stream: 2 * stream });
  const turn = randomUniform(key, shape, { ...options, stream: 2 * stream + 1 });
  const length = sqrt(mul(log(add(mul(radius, -1), 1)), -2));
  return cast(mul(length, cos(mul(turn, 2 * Math.PI))), dtype);
}

/** A share `rate` of the elements of `x` (batch, …) is 0, the others are divided by 1 - rate. */
export function randomDropout(x: Value, key: Value, rate: number, stream: number): Value {
  const draw = randomUniform(key, x.shape, { stream, dtype: "float32" });
  const zero = x.builder.scalar(x.dtype, 0);
  return where(less(draw, rate), zero, mul(x, 1 / (1 - rate)));
}

/** 0, 1, … as int32 [count]. */
function indices(b: GraphBuilder, count: number): Value {
  const [start, end, step] = [0, count, 1].map((n) => b.scalar("int32", n));
  return b.one("Range", [start, end, step]);
}

/** Two rounds of multiply and xor-shift (Wellons' lowbias32, found by search for little bias), on int32. */
function hash(x: Value): Value {
  const first = mul(xorShift(x, 16), 0x7feb352d);
  const second = mul(xorShift(first, 15), 0x846ca68b | 0);
  return xorShift(second, 16);
}

function xorShift(x: Value, by: number): Value {
  return x.builder.one("BitwiseXor", [x, cast(shiftRight(x, by), "int32")]);
}

/** A logical shift of int32, as uint32. */
function shiftRight(x: Value, by: number): Value {
  const amount = x.builder.constant(tensorFrom("uint32", [], [by]));
  return x.builder.one("BitShift", [cast(x, "uint32"), amount], { direction: "RIGHT" });
}
