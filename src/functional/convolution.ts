/**
 * Convolutions and pools over (batch, channels, …places). A single number stands for all spatial
 * dims.
 */
import type { AttributeInputs, Value } from "../graph/index.ts";

export interface WindowOptions {
  /** Default: 1 (pools: the kernel). */
  readonly strides?: number | readonly number[];
  /** Default: 1. */
  readonly dilations?: number | readonly number[];
  /**
   * Zeros on both sides of each dim; a list gives all sizes before and then all sizes after.
   * Default: 0.
   */
  readonly pads?: number | readonly number[];
}

export interface ConvolutionOptions extends WindowOptions {
  /** Default: 1. */
  readonly group?: number;
}

/** `x` (batch, inputs, …), `weight` (outputs, inputs / group, …kernel), `bias` (outputs). */
export function conv(
  x: Value,
  weight: Value,
  bias?: Value,
  options: ConvolutionOptions = {},
): Value {
  const attributes = { ...windowOf(x, options), group: options.group };
  return x.builder.one("Conv", bias === undefined ? [x, weight] : [x, weight, bias], attributes);
}

/**
 * The transpose of `conv`: `weight` (inputs, outputs / group, …kernel). `outputPadding` adds
 * positions at the end of each dim.
 */
export function convTranspose(
  x: Value,
  weight: Value,
  bias?: Value,
  options: ConvolutionOptions & { readonly outputPadding?: number | readonly number[] } = {},
): Value {
  return x.builder.one("ConvTranspose", bias === undefined ? [x, weight] : [x, weight, bias], {
    ...windowOf(x, options),
    group: options.group,
    output_padding: each(x, options.outputPadding),
  });
}

/** The largest element of each window. */
export function maxPool(
  x: Value,
  kernel: number | readonly number[],
  options: WindowOptions = {},
): Value {
  return x.builder.one("MaxPool", [x], poolOf(x, kernel, options));
}

/** The mean of each window; the padding does not count. */
export function averagePool(
  x: Value,
  kernel: number | readonly number[],
  options: WindowOptions = {},
): Value {
  return x.builder.one("AveragePool", [x], poolOf(x, kernel, options));
}

function poolOf(
  x: Value,
  kernel: number | readonly number[],
  options: WindowOptions,
): AttributeInputs {
  const window = windowOf(x, { ...options, strides: options.strides ?? kernel });
  return { ...window, kernel_shape: each(x, kernel) };
}

function windowOf(x: Value, { strides, dilations, pads }: WindowOptions): AttributeInputs {
  const around = each(x, pads);
  const both = around?.length === x.shape.length - 2 ? [...around, ...around] : around;
  return { strides: each(x, strides), dilations: each(x, dilations), pads: both };
}

function each(x: Value, given: number | readonly number[] | undefined): number[] | undefined {
  if (given === undefined) return undefined;
  return typeof given === "number" ? x.shape.slice(2).map(() => given) : [...given];
}
