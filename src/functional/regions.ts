/** Regions of pictures, cut out and scaled to one size. */
import type { Value } from "../graph/index.ts";
import {
  abs,
  add,
  and,
  cast,
  clip,
  detach,
  div,
  equal,
  greaterOrEqual,
  less,
  lessOrEqual,
  maximum,
  mul,
  sub,
  where,
} from "./elementwise.ts";
import { range, reshape, slice, swapLast, transpose } from "./layout.ts";
import { matmul } from "./neural.ts";
import { reduceSum } from "./reduce.ts";

export interface RoiAlignOptions {
  readonly height: number;
  readonly width: number;
  /** The number of samples along each dim of a part; 0: as many as the part is long. Default: 0. */
  readonly samples?: number;
  /** The factor by which coordinates of regions are multiplied. Default: 1. */
  readonly scale?: number;
  /**
   * Whether coordinates refer to the edges of elements and not to their centres; regions may then
   * be smaller than one element. Default: true.
   */
  readonly halfPixel?: boolean;
}

/**
 * The means of `height` · `width` equal parts of regions (He et al. 2017, "Mask R-CNN"). As in
 * PyTorch, no gradient flows to the regions.
 *
 * Bilinear interpolation is separable, and so is the mean over a grid. So the result is a product
 * with a matrix of weights for the rows of a region and one for its columns.
 * @param x (N, C, H, W) @param regions (R, 4): left, top, right, bottom @param pictures int (R)
 * @returns (R, C, height, width)
 */
export function roiAlign(
  x: Value,
  regions: Value,
  pictures: Value,
  options: RoiAlignOptions,
): Value {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const fixed = detach(regions);
  const rows = weightsAlong(fixed, 1, height, options.height, options);
  const columns = weightsAlong(fixed, 0, width, options.width, options);
  const [count, down] = rows.shape as [number, number];
  const numbers = range(x.builder, pictures.dtype, 0, batch);
  const isOf = cast(
    equal(reshape(pictures, [count, 1, 1, 1]), reshape(numbers, [batch, 1])),
    x.dtype,
  );
  const ofAll = mul(reshape(rows, [count, down, 1, height]), isOf);
  const lines = reshape(transpose(x, [0, 2, 1, 3]), [batch * height, channels * width]);
  const read = matmul(reshape(ofAll, [count * down, batch * height]), lines);
  const parts = matmul(reshape(read, [count, down * channels, width]), swapLast(columns));
  const across = columns.shape[1] as number;
  return transpose(reshape(parts, [count, down, channels, across]), [0, 2, 1, 3]);
}

/** (R, parts, size): the weight of each element along a dim in each part of a region. */
function weightsAlong(
  regions: Value,
  first: 0 | 1,
  size: number,
  parts: number,
  { samples: fixed = 0, scale = 1, halfPixel: isHalf = true }: RoiAlignOptions,
): Value {
  const { builder, dtype } = regions;
  const edge = (at: number) => {
    const own = slice(regions, [{ axis: 1, start: at, end: at + 1 }]);
    const scaled = mul(reshape(own, [own.shape[0] as number, 1, 1]), scale);
    return isHalf ? sub(scaled, 0.5) : scaled;
  };
  const start = edge(first);
  const extent = sub(edge(first + 2), start);
  const length = isHalf ? extent : maximum(extent, 1);
  const part = div(length, parts);
  // The number of samples of a part depends on its length. Regions longer than this give NaN, which
  // stops training, instead of a wrong number.
  const most = fixed > 0 ? fixed : Math.max(1, Math.ceil((2 * size) / parts));
  const samples = fixed > 0 ? undefined : builder.one("Ceil", [part]);
  const sample = range(builder, dtype, 0, most);
  const within = div(add(sample, 0.5), samples === undefined ? fixed : maximum(samples, 1));
  const places = reshape(range(builder, dtype, 0, parts), [parts, 1]);
  const at = add(start, mul(add(places, within), part));
  const isInside = and(greaterOrEqual(at, -1), lessOrEqual(at, size));
  const counts = samples === undefined ? isInside : and(isInside, less(sample, samples));
  const [count] = regions.shape as [number];
  const column = (value: Value) => reshape(value, [count, parts, most, 1]);
  const away = abs(sub(column(clip(at, 0, size - 1)), range(builder, dtype, 0, size)));
  const weights = mul(maximum(sub(1, away), 0), column(cast(counts, dtype)));
  const sum = reduceSum(weights, { axes: [2], keepdims: false });
  if (samples === undefined) return div(sum, fixed);
  const tooLong = where(lessOrEqual(samples, most), maximum(samples, 1), Number.NaN);
  return div(sum, tooLong);
}
