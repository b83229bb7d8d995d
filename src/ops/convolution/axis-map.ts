/**
 * Linear maps along single dims, such as averaging windows and interpolation. Each is a small
 * constant matrix, so the gradient is the product with its transpose, which is exact for every
 * mode.
 */
import { expand, matmul, reduceSum, reshape, transpose } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount, normalizeDim, type Shape, tensorFrom } from "../../tensor/index.ts";

/** A linear map along `axis`: result position i is Σ weight · source position, over `taps[i]`. */
export interface AxisMap {
  readonly axis: number;
  /** The size of the source. */
  readonly from: number;
  readonly taps: readonly (readonly Tap[])[];
}

export interface Tap {
  readonly at: number;
  readonly weight: number;
}

/** Maps the gradient of the result back to the source, along all maps in turn. */
export function transposeMaps(dy: Value, maps: readonly AxisMap[]): Value {
  return maps.reduce((value, map) => transposeMap(value, map), dy);
}

function transposeMap(dy: Value, map: AxisMap): Value {
  const axis = normalizeDim(map.axis, dy.shape.length) as number;
  const before = elementCount(dy.shape.slice(0, axis));
  const after = elementCount(dy.shape.slice(axis + 1));
  const to = map.taps.length;
  const shape = dy.shape.map((size, dim) => (dim === axis ? map.from : size));
  const times = repeats(map);
  if (times === 1) return dy;
  if (times !== undefined) {
    const parts = reshape(dy, [before, map.from, times, after]);
    return reshape(reduceSum(parts, { axes: [2], keepdims: false }), shape);
  }
  const weights = matrix(dy, map);
  const product =
    after === 1
      ? matmul(reshape(dy, [before, to]), weights)
      : matmul(transpose(weights, [1, 0]), reshape(dy, [before, to, after]));
  return reshape(product, shape);
}

/**
 * How often each source position is repeated, if the map only repeats: nearest neighbours at an
 * integer scale.
 */
function repeats({ taps, from }: AxisMap): number | undefined {
  const times = taps.length / from;
  const plain = taps.every(
    (row, i) => row.length === 1 && row[0]?.weight === 1 && row[0].at === Math.floor(i / times),
  );
  return Number.isInteger(times) && plain ? times : undefined;
}

/** The map as a constant matrix (to, from). */
function matrix(like: Value, { taps, from }: AxisMap): Value {
  const weights = new Float64Array(taps.length * from);
  for (const [row, list] of taps.entries()) {
    for (const { at, weight } of list) (weights[row * from + at] as number) += weight;
  }
  return like.builder.constant(tensorFrom(like.dtype, [taps.length, from], weights));
}

/**
 * Repeats each element over the tile of `sizes` that it came from: the transpose of summing tiles.
 */
export function spreadTiles(x: Value, sizes: Shape): Value {
  const lead = x.shape.slice(0, x.shape.length - sizes.length);
  const places = x.shape.slice(lead.length);
  const parted = [...lead, ...places.flatMap((place) => [place, 1])];
  const spread = [...lead, ...places.flatMap((place, i) => [place, sizes[i] as number])];
  const whole = [...lead, ...places.map((place, i) => place * (sizes[i] as number))];
  return reshape(expand(reshape(x, parted), spread), whole);
}
