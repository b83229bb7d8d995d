/** Where the elements of a resized tensor come from, dim by dim (ONNX, operator Resize). */
import type { AttributeReader } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";
import type { AxisMap, Tap } from "./axis-map.ts";

/** What Resize does along one dim. `scale` is given, or follows from the sizes. */
export interface ResizedDim {
  readonly axis: number;
  readonly from: number;
  readonly to: number;
  readonly scale: number;
}

export const RESIZE_MODES = ["nearest", "linear", "cubic"];
export const COORDINATE_MODES = [
  "half_pixel",
  "half_pixel_symmetric",
  "pytorch_half_pixel",
  "align_corners",
  "asymmetric",
];

/** One map for each dim that changes, or whose coordinates are not whole. */
export function resizeMaps(attributes: AttributeReader, dims: readonly ResizedDim[]): AxisMap[] {
  return dims
    .filter((dim) => dim.from !== dim.to || dim.scale !== 1)
    .map((dim) => ({
      axis: dim.axis,
      from: dim.from,
      taps: Array.from({ length: dim.to }, (_, place) =>
        tapsAt(attributes, coordinate(attributes, dim, place), dim.from),
      ),
    }));
}

/** The dims of a Resize node from its scales or sizes; these are for the dims in `axes` (all if it is left out). */
export function resizedDims(
  attributes: AttributeReader,
  shape: Shape,
  scales: readonly number[] | undefined,
  sizes: readonly number[] | undefined,
): ResizedDim[] {
  const axes = attributes.has("axes")
    ? attributes.numbers("axes").map((axis) => (axis < 0 ? axis + shape.length : axis))
    : shape.map((_, dim) => dim);
  return axes.map((axis, i) => {
    const from = shape[axis] as number;
    const to = sizes?.[i] ?? Math.floor(from * (scales?.[i] ?? 1));
    return { axis, from, to, scale: scales?.[i] ?? to / from };
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

/** Keys's kernel (1981) over four neighbours; those outside are the edge, or with `exclude_outside` do not count. */
function cubicTaps(attributes: AttributeReader, x: number, size: number): Tap[] {
  const a = attributes.number("cubic_coeff_a");
  const low = Math.floor(x);
  const kernel = (distance: number): number => {
    const d = Math.abs(distance);
    if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  };
  const taps = [-1, 0, 1, 2].map((i) => ({ at: low + i, weight: kernel(x - low - i) }));
  if (attributes.number("exclude_outside") === 1) {
    const inside = taps.filter(({ at }) => at >= 0 && at < size);
    const total = inside.reduce((sum, { weight }) => sum + weight, 0);
    return inside.map(({ at, weight }) => ({ at, weight: weight / total }));
  }
  return taps.map(({ at, weight }) => ({ at: Math.min(size - 1, Math.max(0, at)), weight }));
}
