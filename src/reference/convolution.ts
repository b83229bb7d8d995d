import { type convolution, resizedDims, resizeMaps } from "../ops/convolution/index.ts";
import { elementCount, type Shape } from "../tensor/index.ts";
import { type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill } from "./tensor.ts";

/**
 * Strides, dilations and leading pads, derived from the shapes of input and output, so that any
 * `auto_pad` works.
 */
interface Window {
  readonly kernel: Shape;
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly before: readonly number[];
}

function readWindow(context: KernelContext, kernel: Shape, sizes: Shape, places: Shape): Window {
  const { attributes } = context;
  const list = (name: string, otherwise: number): readonly number[] =>
    attributes.has(name) ? attributes.numbers(name) : sizes.map(() => otherwise);
  const [strides, dilations] = [list("strides", 1), list("dilations", 1)];
  const mode = attributes.string("auto_pad");
  let before = list("pads", 0).slice(0, sizes.length);
  const derived = attributes.has("output_shape");
  if (mode === "VALID") before = sizes.map(() => 0);
  else if (mode !== "NOTSET" || derived) {
    before = sizes.map((size, i) => {
      const extent = ((kernel[i] as number) - 1) * (dilations[i] as number) + 1;
      const reached = ((places[i] as number) - 1) * (strides[i] as number) + extent;
      const more = attributes.has("output_padding")
        ? (attributes.numbers("output_padding")[i] as number)
        : 0;
      const total = Math.max(0, reached + more - size);
      return mode === "SAME_UPPER" ? Math.floor(total / 2) : Math.ceil(total / 2);
    });
  }
  return { kernel, strides, dilations, before };
}

/**
 * The position in the large tensor that output position `place` reads through kernel element `at`;
 * undefined in the padding.
 */
function seen(
  window: Window,
  sizes: Shape,
  place: readonly number[],
  at: readonly number[],
): number[] | undefined {
  const position = place.map(
    (p, i) =>
      p * (window.strides[i] as number) +
      (at[i] as number) * (window.dilations[i] as number) -
      (window.before[i] as number),
  );
  return position.every((p, i) => p >= 0 && p < (sizes[i] as number)) ? position : undefined;
}

function eachIndex(shape: Shape): number[][] {
  return Array.from({ length: elementCount(shape) }, (_, i) => unravel(i, shape));
}

const conv: Kernel = (context) => {
  const [x, w, bias] = [context.input(0), context.input(1), context.inputs[2]];
  const { dtype, shape } = context.output(0);
  const sizes = x.shape.slice(2);
  const window = readWindow(context, w.shape.slice(2), sizes, shape.slice(2));
  const perGroup = w.shape[1] as number;
  const outPerGroup = (shape[1] as number) / context.attributes.number("group");
  const offsets = eachIndex(window.kernel);
  const element = (index: number) => {
    const [n, m, ...place] = unravel(index, shape) as [number, number, ...number[]];
    const firstChannel = Math.floor(m / outPerGroup) * perGroup;
    let sum = bias === undefined ? 0 : (bias.data[m] as number);
    for (const at of offsets) {
      const position = seen(window, sizes, place, at);
      if (position === undefined) continue;
      for (let c = 0; c < perGroup; c++) {
        sum +=
          (x.data[ravel([n, firstChannel + c, ...position], x.shape)] as number) *
          (w.data[ravel([m, c, ...at], w.shape)] as number);
      }
    }
    return sum;
  };
  return [fill(dtype, shape, element)];
};

const convTranspose: Kernel = (context) => {
  const [x, w, bias] = [context.input(0), context.input(1), context.inputs[2]];
  const { dtype, shape } = context.output(0);
  const sizes = shape.slice(2);
  const window = readWindow(context, w.shape.slice(2), sizes, x.shape.slice(2));
  const perGroup = w.shape[1] as number;
  const inPerGroup = (x.shape[1] as number) / context.attributes.number("group");
  const inner = elementCount(sizes);
  const result = fill(dtype, shape, (i) =>
    bias === undefined ? 0 : (bias.data[Math.floor(i / inner) % (shape[1] as number)] as number),
  );
  const offsets = eachIndex(window.kernel);
  for (let i = 0; i < x.data.length; i++) {
    const [n, c, ...place] = unravel(i, x.shape) as [number, number, ...number[]];
    const firstChannel = Math.floor(c / inPerGroup) * perGroup;
    for (const at of offsets) {
      const position = seen(window, sizes, place, at);
      if (position === undefined) continue;
      for (let m = 0; m < perGroup; m++) {
        const target = ravel([n, firstChannel + m, ...position], shape);
        (result.data[target] as number) +=
          (x.data[i] as number) * (w.data[ravel([c, m, ...at], w.shape)] as number);
      }
    }
  }
  return [result];
};

/** For each output element of a pool, the flat indices in X that it reads. */
function pooled(context: KernelContext): number[][] {
  const { shape } = context.input(0);
  const places = context.output(0).shape;
  const sizes = shape.slice(2);
  const kernel = context.attributes.numbers("kernel_shape");
  const window = readWindow(context, kernel, sizes, places.slice(2));
  const offsets = eachIndex(kernel);
  return eachIndex(places).map(([n, c, ...place]) =>
    offsets.flatMap((at) => {
      const position = seen(window, sizes, place, at);
      return position === undefined ? [] : [ravel([n as number, c as number, ...position], shape)];
    }),
  );
}

const maxPool: Kernel = (context) => {
  const { data } = context.input(0);
  const winners = pooled(context).map((indices) =>
    indices.reduce((best, i) => ((data[i] as number) > (data[best] as number) ? i : best)),
  );
  const values = winners.map((i) => data[i] as number);
  return [values, winners]
    .slice(0, context.outputs.length)
    .map((list, i) => ({ ...context.output(i), data: Float64Array.from(list) }));
};

const averagePool: Kernel = (context) => {
  const { data, shape } = context.input(0);
  const places = context.output(0).shape;
  const withPad = context.attributes.number("count_include_pad") === 1;
  const kernel = context.attributes.numbers("kernel_shape");
  const sizes = shape.slice(2);
  const window = readWindow(context, kernel, sizes, places.slice(2));
  const pads = context.attributes.has("pads") ? context.attributes.numbers("pads") : [];
  // The number of elements of a window that lie before the end of the padding.
  const counted = (place: readonly number[]) =>
    eachIndex(kernel).filter((at) =>
      at.every((k, i) => {
        const position =
          (place[i] as number) * (window.strides[i] as number) +
          k * (window.dilations[i] as number) -
          (window.before[i] as number);
        const after = pads[sizes.length + i] ?? Number.POSITIVE_INFINITY;
        return position < (sizes[i] as number) + after;
      }),
    ).length;
  const means = pooled(context).map((indices, i) => {
    const count = withPad ? counted(unravel(i, places).slice(2)) : indices.length;
    return indices.reduce((sum, at) => sum + (data[at] as number), 0) / count;
  });
  return [{ ...context.output(0), data: Float64Array.from(means) }];
};

const lpPool: Kernel = (context) => {
  const { data } = context.input(0);
  const p = context.attributes.number("p");
  const norms = pooled(context).map(
    (indices) => indices.reduce((sum, at) => sum + Math.abs(data[at] as number) ** p, 0) ** (1 / p),
  );
  return [{ ...context.output(0), data: Float64Array.from(norms) }];
};

/** Reduces all spatial elements of each channel. */
function globalPool(compute: (values: Float64Array) => number): Kernel {
  return ({ input, output }) => {
    const { data, shape } = input(0);
    const size = elementCount(shape.slice(2));
    const { dtype, shape: to } = output(0);
    return [fill(dtype, to, (i) => compute(data.subarray(i * size, (i + 1) * size)))];
  };
}

const resize: Kernel = ({ inputs, input, output, attributes }) => {
  const x = input(0);
  const given = (index: number) => {
    const data = inputs[index]?.data;
    return data === undefined || data.length === 0 ? undefined : Array.from(data);
  };
  const settings = { region: given(1), scales: given(2), sizes: given(3) };
  const dims = resizedDims(attributes, x.shape, settings);
  const maps = resizeMaps(attributes, dims);
  const { dtype, shape } = output(0);
  // The element at a position whose dims from `index` on are still positions of the result.
  const read = (position: readonly number[], index: number): number => {
    const map = maps[index];
    if (map === undefined) return x.data[ravel(position, x.shape)] as number;
    const taps = map.taps[position[map.axis] as number] ?? [];
    return taps.reduce(
      (sum, { at, weight }) => sum + weight * read(position.with(map.axis, at), index + 1),
      0,
    );
  };
  const outside = attributes.number("extrapolation_value");
  const isOutside = (position: readonly number[]) =>
    maps.some((map) => map.taps[position[map.axis] as number]?.length === 0);
  return [
    fill(dtype, shape, (i) => {
      const position = unravel(i, shape);
      return isOutside(position) ? outside : read(position, 0);
    }),
  ];
};

export const convolutionKernels: Record<keyof typeof convolution, Kernel> = {
  AveragePool: averagePool,
  Conv: conv,
  ConvTranspose: convTranspose,
  GlobalAveragePool: globalPool((values) => values.reduce((a, b) => a + b, 0) / values.length),
  GlobalMaxPool: globalPool((values) => Math.max(...values)),
  LpPool: lpPool,
  MaxPool: maxPool,
  Resize: resize,
};
