/**
 * The gradient of a convolution's kernel, itself a convolution: channels become the batch, the batch becomes channels,
 * the output's gradient is the kernel, and strides and dilations change places.
 */
import { reshape, slice, transpose } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import type { Window } from "./window.ts";

/**
 * @param x (N, C, sizes) @param dy (N, M, places)
 * @returns (M, C/group, kernel)
 */
export function kernelGradient(x: Value, dy: Value, window: Window, group: number): Value {
  const [batch, channels] = x.shape as unknown as [number, number];
  const sizes = x.shape.slice(2);
  const perGroup = channels / group;
  const spatial = sizes.map((_, i) => i);
  // How far the last window reaches: what lies beyond it must not be seen, so `after` may be negative.
  const after = sizes.map((size, i) => {
    const kernel = ((window.kernel[i] as number) - 1) * (window.dilations[i] as number);
    const places = ((dy.shape[i + 2] as number) - 1) * (window.strides[i] as number);
    return kernel + places + 1 - size - (window.before[i] as number);
  });
  const seen = crop(x, after);
  const cut = seen.shape.slice(2);
  const grouped = reshape(seen, [batch, group, perGroup, ...cut]);
  const order = [2, 1, 0, ...spatial.map((i) => i + 3)];
  const input = reshape(transpose(grouped, order), [perGroup, group * batch, ...cut]);
  const kernel = transpose(dy, [1, 0, ...spatial.map((i) => i + 2)]);
  const result = x.builder.one("Conv", [input, kernel], {
    group,
    strides: window.dilations,
    dilations: window.strides,
    pads: [...window.before, ...after.map((size) => Math.max(0, size))],
  });
  return transpose(result, [1, 0, ...spatial.map((i) => i + 2)]);
}

/** Cuts −`after[i]` elements off the end of spatial dim i where that is positive. */
function crop(x: Value, after: readonly number[]): Value {
  const ranges = after
    .map((size, i) => ({ axis: i + 2, start: 0, end: (x.shape[i + 2] as number) + size, size }))
    .filter(({ size }) => size < 0);
  return ranges.length === 0 ? x : slice(x, ranges);
}
