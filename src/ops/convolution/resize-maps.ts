/**
 * Computes where the elements of a resized tensor come from, dim by dim (ONNX, operator Resize).
 */
import type { AttributeReader } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";
import type { AxisMap, Tap } from "./axis-map.ts";

/**
 * How Resize works along one dim. `scale` is given, or follows from the sizes; `region` is the
 * start and end as fractions of the source.
 */
export interface ResizedDim {
  readonly axis: number;
  readonly from: number;
  readonly to: number;
  readonly scale: number;
  readonly region: readonly [number, number];
}

export const RESIZE_MODES = ["nearest", "linear", "cubic"];
export const COORDINATE_MODES = [
  "half_pixel",
  "half_pixel_symmetric",
  "pytorch_half_pixel",
  "align_corners",
  "asymmetric",
  "tf_crop_and_resize",
];
export const RATIO_POLICIES = ["stretch", "not_larger", "not_smaller"];

/**
 * One map for each dim that changes, or whose coordinates are not integers. A position without taps
 * lies outside.
 */
export function resizeMaps(attributes: AttributeReader, dims: readonly ResizedDim[]): AxisMap[] {
  const isCrop = attributes.string("coordinate_transformation_mode") === "tf_crop_and_resize";
  return (
    dims
      // As in ONNX Runtime, a dim that keeps its size is not cut to a region either.
      .filter((dim) => dim.from !== dim.to || dim.scale !== 1)
      .map((dim) => ({
        axis: dim.axis,
        from: dim.from,
        taps: Array.from({ length: dim.to }, (_, place) => {
          const x = coordinate(attributes, dim, place);
          if (isCrop && (x < 0 || x > dim.from - 1)) return [];
          return attributes.number("antialias") === 1
            ? smoothTaps(attributes, x, dim)
            : tapsAt(attributes, x, dim.from);
        }),
      }))
  );
}

/**
 * The inputs of a Resize node that are known beforehand, each for the dims in `axes` (all, if it is
 * omitted).
 */
export interface ResizeSettings {
  /** All starts, followed by all ends. */
  readonly region: readonly number[] | undefined;
  readonly scales: readonly number[] | undefined;
  readonly sizes: readonly number[] | undefined;
}

/** The dims of a Resize node. */
export function resizedDims(
  attributes: AttributeReader,
  shape: Shape,
  { region, scales, sizes }: ResizeSettings,
): ResizedDim[] {
  const axes = attributes.has("axes")
    ? attributes.numbers("axes").map((axis) => (axis < 0 ? axis + shape.length : axis))
    : shape.map((_, dim) => dim);
  const ratios = axes.map((axis, i) => (sizes?.[i] ?? 0) / (shape[axis] as number));
  const policy = attributes.string("keep_aspect_ratio_policy");
  const common =
    sizes === undefined || policy === "stretch"
      ? undefined
      : policy === "not_larger"
        ? Math.min(...ratios)
        : Math.max(...ratios);
  return axes.map((axis, i) => {
    const from = shape[axis] as number;
    const part = [region?.[i] ?? 0, region?.[i + axes.length] ?? 1] as const;
    // Sizes are rounded to the nearest integer, halves up; the scale keeps its value from before.
    if (common !== undefined) {
      return { axis, from, to: Math.floor(common * from + 0.5), scale: common, region: part };
    }
    const to = sizes?.[i] ?? Math.floor(from * (scales?.[i] ?? 1));
    return { axis, from, to, scale: scales?.[i] ?? to / from, region: part };
  });
}

/** The coordinate in the source of position `place` in the result. */
function coordinate(attributes: AttributeReader, dim: ResizedDim, place: number): number {
  const { from, to, scale } = dim;
  switch (attributes.string("coordinate_transformation_mode")) {
    case "half_pixel_symmetric": {
      const offset = (from / 2) * (1 - to / (from * scale));
      return offset + (place + 0.5) / scale - 0.5;
    }
    case "pytorch_half_pixel":
      return to > 1 ? (place + 0.5) / scale - 0.5 : 0;
    case "align_corners":
      return to === 1 ? 0 : (place * (from - 1)) / (to - 1);
    case "asymmetric":
      return place / scale;
    case "tf_crop_and_resize": {
      const [start, end] = dim.region;
      const share = to > 1 ? start + (place * (end - start)) / (to - 1) : (start + end) / 2;
      return share * (from - 1);
    }
    default:
      return (place + 0.5) / scale - 0.5;
  }
}

function tapsAt(attributes: AttributeReader, x: number, size: number): Tap[] {
  const clamp = (at: number) => Math.min(size - 1, Math.max(0, at));
  switch (attributes.string("mode")) {
    case "linear": {
      const within = clamp(x);
      const low = Math.floor(within);
      const part = within - low;
      if (part === 0) return [{ at: low, weight: 1 }];
      return [
        { at: low, weight: 1 - part },
        { at: clamp(low + 1), weight: part },
      ];
    }
    case "cubic":
      return cubicTaps(attributes, x, size);
    default:
      return [{ at: clamp(nearest(attributes.string("nearest_mode"), x)), weight: 1 }];
  }
}

function nearest(mode: string, x: number): number {
  switch (mode) {
    case "round_prefer_ceil":
      return Math.floor(x + 0.5);
    case "floor":
      return Math.floor(x);
    case "ceil":
      return Math.ceil(x);
    default:
      return Math.ceil(x - 0.5);
  }
}

/** Keys's cubic kernel (1981) at a distance. */
function keys(attributes: AttributeReader, distance: number): number {
  const a = attributes.number("cubic_coeff_a");
  const d = Math.abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/**
 * The taps of four neighbours. Those outside are replaced by the edge or, with `exclude_outside`,
 * omitted.
 */
function cubicTaps(attributes: AttributeReader, x: number, size: number): Tap[] {
  const low = Math.floor(x);
  const taps = [-1, 0, 1, 2].map((i) => ({
    at: low + i,
    weight: keys(attributes, x - low - i),
  }));
  if (attributes.number("exclude_outside") === 0) return clamped(taps, size);
  return normalized(taps.filter(({ at }) => at >= 0 && at < size));
}

/**
 * The taps of all elements below the kernel, which is as wide as the part of the source that one
 * element of a smaller result represents.
 */
function smoothTaps(attributes: AttributeReader, x: number, { from, scale }: ResizedDim): Tap[] {
  const isCubic = attributes.string("mode") === "cubic";
  const width = Math.max(1, 1 / scale);
  const reach = (isCubic ? 2 : 1) * width;
  const first = Math.floor(x + 1 - reach);
  const count = Math.floor(x + 1 + reach) - first;
  const taps = Array.from({ length: count }, (_, i) => {
    const distance = (first + i - x) / width;
    const weight = isCubic ? keys(attributes, distance) : Math.max(0, 1 - Math.abs(distance));
    return { at: first + i, weight };
  });
  const counted =
    attributes.number("exclude_outside") === 0
      ? taps
      : taps.filter(({ at }) => at >= 0 && at < from);
  return clamped(normalized(counted), from);
}

function normalized(taps: readonly Tap[]): Tap[] {
  const total = taps.reduce((sum, { weight }) => sum + weight, 0);
  return taps.map(({ at, weight }) => ({ at, weight: weight / total }));
}

function clamped(taps: readonly Tap[], size: number): Tap[] {
  return taps.map(({ at, weight }) => ({ at: Math.min(size - 1, Math.max(0, at)), weight }));
}
