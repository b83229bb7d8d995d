/**
 * Reads between the elements of a tensor: a value at a coordinate is a weighted sum of the nearest
 * elements. Weights and positions are computed for each dim separately; a weight over all dims is
 * the product of those of the dims.
 */
import {
  add,
  and,
  cast,
  clip,
  concat,
  floor,
  gather,
  greaterOrEqual,
  lessOrEqual,
  mul,
  range,
  reduceSum,
  reshape,
  sub,
  transpose,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";

/**
 * The taps along one dim: `at` (integers as floats) and `weight`, both (batch, taps, positions).
 */
export interface Taps {
  readonly at: Value;
  readonly weight: Value;
}

/** The two neighbours of `x` (batch, positions); the nearer one has more weight. */
export function linearTaps(x: Value): Taps {
  const low = column(floor(x));
  const part = sub(column(x), low);
  return {
    at: concat([low, add(low, 1)], 1),
    weight: concat([sub(1, part), part], 1),
  };
}

/** (batch, places) → (batch, 1, places). */
export function column(x: Value): Value {
  return reshape(x, [x.shape[0] as number, 1, x.shape[1] as number]);
}

/** The taps with weight 0 for positions outside of a dim of `size`. */
export function zeroOutside({ at, weight }: Taps, size: number): Taps {
  const inside = and(greaterOrEqual(at, 0), lessOrEqual(at, size - 1));
  return { at, weight: mul(weight, cast(inside, weight.dtype)) };
}

/**
 * @param x (batch, channels, …sizes)
 * @param taps one for each of `sizes`
 * @returns (batch, positions, channels)
 */
export function readTaps(x: Value, taps: readonly Taps[]): Value {
  const [batch, channels, ...sizes] = x.shape as [number, number, ...number[]];
  const count = elementCount(sizes);
  const places = (taps[0] as Taps).at.shape[2] as number;
  let at: Value | undefined;
  let weight: Value | undefined;
  for (const [dim, tap] of taps.entries()) {
    const size = sizes[dim] as number;
    const own = cast(clip(tap.at, 0, size - 1), "int32");
    at = at === undefined ? own : pairs(mul(at, size), own, add);
    weight = weight === undefined ? tap.weight : pairs(weight, tap.weight, mul);
  }
  const starts = range(x.builder, "int32", 0, batch * count, count);
  const rows = add(at as Value, reshape(starts, [batch, 1, 1]));
  const toRows = [0, ...sizes.map((_, dim) => dim + 2), 1];
  const table = reshape(transpose(x, toRows), [batch * count, channels]);
  const taken = rows.shape[1] as number;
  const read = gather(table, rows);
  const shares = reshape(weight as Value, [batch, taken, places, 1]);
  return reduceSum(mul(read, shares), { axes: [1], keepdims: false });
}

/** Every tap of `a` with every tap of `b`. */
function pairs(a: Value, b: Value, join: (a: Value, b: Value) => Value): Value {
  const [batch, first, places] = a.shape as [number, number, number];
  const second = b.shape[1] as number;
  const all = join(reshape(a, [batch, first, 1, places]), reshape(b, [batch, 1, second, places]));
  return reshape(all, [batch, first * second, places]);
}
