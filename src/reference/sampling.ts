import type { sampling } from "../ops/sampling/index.ts";
import { elementCount } from "../tensor/index.ts";
import { type Kernel, ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

interface Tap {
  readonly at: number;
  readonly weight: number;
}

/** Mirrors a coordinate outside of [0, size - 1] repeatedly until it lies within [low, high]. */
function mirror(x: number, low: number, high: number): number {
  if (low === high) return low;
  let at = x;
  while (at < low || at > high) at = at < low ? 2 * low - at : 2 * high - at;
  return at;
}

const gridSample: Kernel = ({ input, output, attributes }) => {
  const [x, grid] = [input(0), input(1)];
  const sizes = x.shape.slice(2);
  const isAligned = attributes.number("align_corners") === 1;
  const padding = attributes.string("padding_mode");
  const inside = (at: number, size: number): number => {
    if (padding === "zeros") return at;
    const back =
      padding === "border"
        ? at
        : isAligned
          ? mirror(at, 0, size - 1)
          : mirror(at, -0.5, size - 0.5);
    return Math.min(size - 1, Math.max(0, back));
  };
  const taps = (given: number, size: number): Tap[] => {
    const at = isAligned ? ((given + 1) / 2) * (size - 1) : ((given + 1) * size - 1) / 2;
    const mode = attributes.string("mode");
    if (mode === "cubic") {
      const low = Math.floor(at);
      return [-1, 0, 1, 2].map((i) => ({
        at: inside(low + i, size),
        weight: keys(Math.abs(at - low - i)),
      }));
    }
    const within = inside(at, size);
    if (mode === "nearest") return [{ at: roundToEven(within), weight: 1 }];
    const low = Math.floor(within);
    return [
      { at: low, weight: 1 - (within - low) },
      { at: low + 1, weight: within - low },
    ];
  };
  const { dtype, shape } = output(0);
  const value = (index: number): number => {
    const [n, c, ...place] = unravel(index, shape) as [number, number, ...number[]];
    const at = sizes.map((size, dim) => {
      const along = ravel([n, ...place, sizes.length - 1 - dim], grid.shape);
      return taps(grid.data[along] as number, size);
    });
    return weighted(at, (position) => {
      const isInside = position.every((p, i) => p >= 0 && p < (sizes[i] as number));
      return isInside ? (x.data[ravel([n, c, ...position], x.shape)] as number) : 0;
    });
  };
  return [fill(dtype, shape, value)];
};

/**
 * The element of image `n`, channel `c`, interpolated at a position between elements; zeros lie
 * around the image.
 */
function between(x: ReferenceTensor, n: number, c: number, place: readonly number[]): number {
  const taps = place.map((at) => {
    const low = Math.floor(at);
    return [
      { at: low, weight: 1 - (at - low) },
      { at: low + 1, weight: at - low },
    ];
  });
  return weighted(taps, (position) => {
    const isInside = position.every((p, i) => p >= 0 && p < (x.shape[i + 2] as number));
    return isInside ? (x.data[ravel([n, c, ...position], x.shape)] as number) : 0;
  });
}

const deformConv: Kernel = (context) => {
  const [x, w, offsets] = [context.input(0), context.input(1), context.input(2)];
  const [bias, factors] = [context.inputs[3], context.inputs[4]];
  const { dtype, shape } = context.output(0);
  const { attributes } = context;
  const kernel = w.shape.slice(2);
  const elements = elementCount(kernel);
  const [perGroup, outputs] = [w.shape[1] as number, shape[1] as number];
  const perMoved = (x.shape[1] as number) / attributes.number("offset_group");
  const list = (name: string, otherwise: number) =>
    attributes.has(name) ? attributes.numbers(name) : [0, 1].map(() => otherwise);
  const [strides, dilations, pads] = [list("strides", 1), list("dilations", 1), list("pads", 0)];
  const value = (index: number): number => {
    const [n, m, ...place] = unravel(index, shape) as [number, number, number, number];
    const first = Math.floor(m / (outputs / attributes.number("group"))) * perGroup;
    let sum = bias === undefined ? 0 : (bias.data[m] as number);
    for (let i = 0; i < perGroup * elements; i++) {
      const channel = first + Math.floor(i / elements);
      const moved = Math.floor(channel / perMoved) * elements + (i % elements);
      const at = unravel(i % elements, kernel).map((k, dim) => {
        const offset = offsets.data[ravel([n, 2 * moved + dim, ...place], offsets.shape)] as number;
        const start = (place[dim] as number) * (strides[dim] as number) - (pads[dim] as number);
        return start + k * (dilations[dim] as number) + offset;
      });
      const factor =
        factors === undefined
          ? 1
          : (factors.data[ravel([n, moved, ...place], factors.shape)] as number);
      sum += (w.data[m * perGroup * elements + i] as number) * factor * between(x, n, channel, at);
    }
    return sum;
  };
  return [fill(dtype, shape, value)];
};

const col2Im: Kernel = ({ input, output, attributes }) => {
  const windows = input(0);
  const kernel = Array.from(input(2).data);
  const { dtype, shape } = output(0);
  const sizes = shape.slice(2);
  const list = (name: string, otherwise: number) =>
    attributes.has(name) ? attributes.numbers(name) : sizes.map(() => otherwise);
  const [strides, dilations, pads] = [list("strides", 1), list("dilations", 1), list("pads", 0)];
  const places = sizes.map((size, dim) => {
    const reach = ((kernel[dim] as number) - 1) * (dilations[dim] as number) + 1;
    const room = size + (pads[dim] as number) + (pads[dim + sizes.length] ?? 0) - reach;
    return Math.floor(room / (strides[dim] as number)) + 1;
  });
  const result = fill(dtype, shape, () => 0);
  for (const [i, element] of windows.data.entries()) {
    const [n, row, place] = unravel(i, windows.shape) as [number, number, number];
    const at = unravel(row % elementCount(kernel), kernel);
    const position = unravel(place, places).map(
      (own, dim) =>
        own * (strides[dim] as number) +
        (at[dim] as number) * (dilations[dim] as number) -
        (pads[dim] as number),
    );
    if (position.some((p, dim) => p < 0 || p >= (sizes[dim] as number))) continue;
    const channel = Math.floor(row / elementCount(kernel));
    (result.data[ravel([n, channel, ...position], shape)] as number) += element;
  }
  return [result];
};

/** Keys's cubic kernel with a = -0.75, at a distance of up to 2. */
function keys(d: number): number {
  const a = -0.75;
  return d <= 1
    ? (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1
    : a * d ** 3 - 5 * a * d ** 2 + 8 * a * d - 4 * a;
}

function roundToEven(x: number): number {
  const low = Math.floor(x);
  const part = x - low;
  return part > 0.5 || (part === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/**
 * The sum over all combinations of taps, one of each dim, of the product of their weights and the
 * element there.
 */
function weighted(taps: readonly Tap[][], read: (at: readonly number[]) => number): number {
  const counts = taps.map((own) => own.length);
  let sum = 0;
  for (let i = 0; i < elementCount(counts); i++) {
    const chosen = unravel(i, counts).map((tap, dim) => taps[dim]?.[tap] as Tap);
    const weight = chosen.reduce((product, tap) => product * tap.weight, 1);
    if (weight !== 0) sum += weight * read(chosen.map(({ at }) => at));
  }
  return sum;
}

export const samplingKernels: Record<keyof typeof sampling, Kernel> = {
  Col2Im: col2Im,
  DeformConv: deformConv,
  GridSample: gridSample,
};
