/**
 * Windows that slide over the spatial dims: sizes, strides, dilations and pads of convolutions and
 * pools.
 */
import type { AttributeReader, AttributeSpec } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";

/** One number for each spatial dim. */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly before: readonly number[];
  readonly after: readonly number[];
}

export const WINDOW_ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  auto_pad: { kind: "string", default: "NOTSET" },
  dilations: { kind: "ints", default: null },
  kernel_shape: { kind: "ints", default: null },
  pads: { kind: "ints", default: null },
  strides: { kind: "ints", default: null },
};

/**
 * The window of a node over inputs of the given spatial sizes, with `auto_pad` resolved (ONNX,
 * operator Conv).
 */
export function readWindow(attributes: AttributeReader, sizes: Shape, kernel: Shape): Window {
  const list = (name: string, otherwise: number, count = sizes.length) =>
    attributes.has(name)
      ? attributes.numbers(name)
      : Array.from({ length: count }, () => otherwise);
  const strides = list("strides", 1);
  const dilations = list("dilations", 1);
  const pads = list("pads", 0, 2 * sizes.length);
  const window = { kernel, strides, dilations };
  const mode = attributes.has("auto_pad") ? attributes.string("auto_pad") : "NOTSET";
  if (mode === "SAME_UPPER" || mode === "SAME_LOWER") {
    const totals = sizes.map((size, i) => {
      const stride = strides[i] as number;
      const outputs = Math.ceil(size / stride);
      return Math.max(0, (outputs - 1) * stride + extent(window, i) - size);
    });
    const small = totals.map((total) => Math.floor(total / 2));
    const large = totals.map((total) => Math.ceil(total / 2));
    return mode === "SAME_UPPER"
      ? { ...window, before: small, after: large }
      : { ...window, before: large, after: small };
  }
  if (mode === "VALID") {
    const none = sizes.map(() => 0);
    return { ...window, before: none, after: none };
  }
  return { ...window, before: pads.slice(0, sizes.length), after: pads.slice(sizes.length) };
}

/** The number of elements that the dilated kernel spans along spatial dim `i`. */
export function extent(window: Pick<Window, "kernel" | "dilations">, i: number): number {
  return ((window.kernel[i] as number) - 1) * (window.dilations[i] as number) + 1;
}

/** The number of window positions along each spatial dim. */
export function placesOf(window: Window, sizes: Shape, ceil = false): number[] {
  return sizes.map((size, i) => {
    const before = window.before[i] as number;
    const stride = window.strides[i] as number;
    const room = size + before + (window.after[i] as number) - extent(window, i);
    if (!ceil) return Math.floor(room / stride) + 1;
    const places = Math.ceil(room / stride) + 1;
    // The last window must start inside the input or the padding before it.
    return (places - 1) * stride >= size + before ? places - 1 : places;
  });
}

/** The window as attributes of a node that the gradient emits; `auto_pad` is resolved. */
export function windowAttributes(window: Window): {
  strides: readonly number[];
  dilations: readonly number[];
  pads: readonly number[];
} {
  return {
    strides: window.strides,
    dilations: window.dilations,
    pads: [...window.before, ...window.after],
  };
}
