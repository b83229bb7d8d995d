/** What pools have in common. */
import type { AttributeReader, AttributeSpec, InferContext } from "../../graph/index.ts";
import type { Shape, TensorType } from "../../tensor/index.ts";
import { floatType } from "../shared.ts";
import { placesOf, readWindow, WINDOW_ATTRIBUTES, type Window } from "./window.ts";

export const POOL_ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  ...WINDOW_ATTRIBUTES,
  kernel_shape: { kind: "ints" },
  ceil_mode: { kind: "int", default: 0 },
};

export function poolWindow(attributes: AttributeReader, x: Shape): Window {
  return readWindow(attributes, x.slice(2), attributes.numbers("kernel_shape"));
}

/** The type of a pool's result: input 0 is (N, C, sizes). */
export function pooledType(context: InferContext): TensorType {
  const { dtype, shape } = floatType(context);
  const kernel = context.attributes.numbers("kernel_shape");
  if (shape.length < 3 || kernel.length !== shape.length - 2) {
    context.fail("takes an input (N, C, sizes) and a kernel size for each spatial dim");
  }
  const ceil = context.attributes.number("ceil_mode") === 1;
  const places = placesOf(poolWindow(context.attributes, shape), shape.slice(2), ceil);
  if (places.some((count) => count < 1)) context.fail("the window is larger than the input");
  return { dtype, shape: [...shape.slice(0, 2), ...places] };
}

/** The type of the result of a pool over all spatial dims: input 0 is (N, C, sizes). */
export function globalPoolType(context: InferContext): TensorType {
  const { dtype, shape } = context.input(0);
  if (shape.length < 3) context.fail("takes an input (N, C, sizes)");
  return { dtype, shape: shape.map((size, dim) => (dim < 2 ? size : 1)) };
}

/** Whether the windows divide the input into tiles, without overlap or remainder. */
export function isTiling(window: Window, sizes: Shape): boolean {
  return window.kernel.every(
    (kernel, i) =>
      kernel === window.strides[i] &&
      window.dilations[i] === 1 &&
      window.before[i] === 0 &&
      window.after[i] === 0 &&
      (sizes[i] as number) % kernel === 0,
  );
}

/**
 * For each position of a window along spatial dim `i`: the positions in the input that it reads,
 * and their number with the padding.
 */
export function windowTaps(
  window: Window,
  i: number,
  size: number,
  places: number,
): { at: number[]; padded: number }[] {
  const [kernel, stride] = [window.kernel[i] as number, window.strides[i] as number];
  const [dilation, before] = [window.dilations[i] as number, window.before[i] as number];
  return Array.from({ length: places }, (_, place) => {
    const all = Array.from({ length: kernel }, (_, k) => place * stride + k * dilation - before);
    return {
      at: all.filter((at) => at >= 0 && at < size),
      padded: all.filter((at) => at < size + (window.after[i] as number)).length,
    };
  });
}

/** The dims along which windows slide: all but samples and channels. */
export function spatialDims(x: Shape): number[] {
  return x.slice(2).map((_, i) => i + 2);
}
