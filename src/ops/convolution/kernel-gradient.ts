/**
 * The gradient of a convolution's kernel, by the faster of two methods, both made of ordinary
 * products and convolutions.
 */
import { concat, gemm, pad, reshape, slice, transpose } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount, type Shape, stridesOf } from "../../tensor/index.ts";
import type { Window } from "./window.ts";

/**
 * @param x (N, C, sizes) @param dy (N, M, places)
 * @returns (M, C/group, kernel)
 */
export function kernelGradient(x: Value, dy: Value, window: Window, group: number): Value {
  const elements = elementCount(window.kernel);
  // One product for each element of the kernel is twice as fast if there are enough channels.
  const isWide = (x.shape[1] as number) >= 8 && elements <= 25;
  return group === 1 && (isWide || elements === 1)
    ? byElement(x, dy, window)
    : byConvolution(x, dy, window, group);
}

/**
 * Each element of the kernel multiplies one shifted, strided copy of the input: its gradient is the
 * sum of dy times that copy over all positions.
 */
function byElement(x: Value, dy: Value, window: Window): Value {
  const [channels, outputs] = [x.shape[1] as number, dy.shape[1] as number];
  const places = dy.shape.slice(2);
  const padded = pad(x, [0, 0, ...window.before], [0, 0, ...window.after]);
  const input = channelsFirst(padded);
  const gradient = reshape(channelsFirst(dy), [outputs, elementCount(dy.shape) / outputs]);
  const parts = eachElement(window.kernel).map((at) => {
    const ranges = at.map((k, i) => {
      const start = k * (window.dilations[i] as number);
      const stride = window.strides[i] as number;
      return {
        axis: i + 2,
        start,
        end: start + ((places[i] as number) - 1) * stride + 1,
        step: stride,
      };
    });
    const isWhole = ranges.every(
      ({ axis, start, end, step }) => start === 0 && step === 1 && end === input.shape[axis],
    );
    const seen = isWhole ? input : slice(input, ranges);
    const rows = reshape(seen, [channels, elementCount(seen.shape) / channels]);
    return reshape(gemm(gradient, rows, undefined, { transB: true }), [outputs, channels, 1]);
  });
  return reshape(concat(parts, 2), [outputs, channels, ...window.kernel]);
}

/** The multi-indices of a kernel. */
function eachElement(kernel: Shape): number[][] {
  const strides = stridesOf(kernel);
  return Array.from({ length: elementCount(kernel) }, (_, index) =>
    kernel.map((size, i) => Math.floor(index / (strides[i] as number)) % size),
  );
}

function channelsFirst(x: Value): Value {
  return transpose(x, [1, 0, ...x.shape.slice(2).map((_, i) => i + 2)]);
}

/**
 * A convolution in which batch and channels are exchanged, the output's gradient is the kernel, and
 * strides and dilations are exchanged.
 */
function byConvolution(x: Value, dy: Value, window: Window, group: number): Value {
  const [batch, channels] = x.shape as unknown as [number, number];
  const sizes = x.shape.slice(2);
  const perGroup = channels / group;
  // The extent that the last window reaches: what lies beyond it must not be read, so `after` may
  // be negative.
  const after = sizes.map((size, i) => {
    const kernel = ((window.kernel[i] as number) - 1) * (window.dilations[i] as number);
    const places = ((dy.shape[i + 2] as number) - 1) * (window.strides[i] as number);
    return kernel + places + 1 - size - (window.before[i] as number);
  });
  const seen = crop(x, after);
  const cut = seen.shape.slice(2);
  const grouped = reshape(seen, [batch, group, perGroup, ...cut]);
  const order = [2, 1, 0, ...sizes.map((_, i) => i + 3)];
  const input = reshape(transpose(grouped, order), [perGroup, group * batch, ...cut]);
  const result = x.builder.one("Conv", [input, channelsFirst(dy)], {
    group,
    strides: window.dilations,
    dilations: window.strides,
    pads: [...window.before, ...after.map((size) => Math.max(0, size))],
  });
  return channelsFirst(result);
}

/** Cuts −`after[i]` elements off the end of spatial dim i where that is positive. */
function crop(x: Value, after: readonly number[]): Value {
  const ranges = after.flatMap((size, i) =>
    size < 0 ? [{ axis: i + 2, start: 0, end: (x.shape[i + 2] as number) + size }] : [],
  );
  return ranges.length === 0 ? x : slice(x, ranges);
}
