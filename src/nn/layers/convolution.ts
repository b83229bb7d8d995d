/** Convolution and pooling over (batch, channels, …places). */

import { reduceMean } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { anything, count, finite, flag, type OptionKinds } from "../../options.ts";
import { elementCount, formatShape } from "../../tensor/index.ts";
import { fanIn } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";

export interface ConvolutionOptions {
  /** The number of output channels. */
  readonly outputs: number;
  /** The size of the window in each dim. */
  readonly kernel: number;
  /** Default: 1. */
  readonly stride?: number;
  /**
   * The number of zeros on each side, or `same`: as many as keep the size at stride 1. Default: 0.
   */
  readonly padding?: number | "same";
  /** Default: 1. */
  readonly dilation?: number;
  /** Default: 1. */
  readonly groups?: number;
  /** Default: true. */
  readonly bias?: boolean;
  /** The initializer of the weight. Default: uniform within ±1/√(inputs of one output). */
  readonly initializer?: Initializer;
}

/** The schemas of the options of a convolution; padding is checked separately. */
const CONVOLUTION_OPTIONS: OptionKinds<ConvolutionOptions> = {
  outputs: count,
  kernel: count,
  stride: count.optional(),
  padding: anything.optional(),
  dilation: count.optional(),
  groups: count.optional(),
  bias: flag.optional(),
  initializer: initial,
};

/**
 * `x` (batch, channels, length) → (batch, outputs, length'). Parameters: `weight` [outputs,
 * channels / groups, kernel], `bias`.
 */
export const conv1d = (scope: Scope, x: Value, options: ConvolutionOptions): Value =>
  convolution(scope, x, options, 1);

/**
 * `x` (batch, channels, height, width). Parameters: `weight` [outputs, channels / groups, kernel,
 * kernel], `bias`.
 */
export const conv2d = (scope: Scope, x: Value, options: ConvolutionOptions): Value =>
  convolution(scope, x, options, 2);

function convolution(scope: Scope, x: Value, options: ConvolutionOptions, places: 1 | 2): Value {
  checkLayer(scope, `conv${places}d`, options, CONVOLUTION_OPTIONS);
  const { outputs, kernel, stride = 1, dilation = 1, groups = 1 } = options;
  return scope.within(() => {
    expectPlaces(scope, x, places);
    const channels = x.shape[1] as number;
    if (channels % groups !== 0 || outputs % groups !== 0) {
      scope.fail(
        `${channels} input and ${outputs} output channels do not divide into ${groups} groups`,
        "Set groups to a divisor of both.",
      );
    }
    const each = (size: number): number[] => Array.from({ length: places }, () => size);
    const shape = [outputs, channels / groups, ...each(kernel)];
    const inputs = elementCount(shape.slice(1));
    const weight = scope.parameter("weight", shape, options.initializer ?? fanIn(inputs));
    const bias =
      options.bias === false ? undefined : scope.parameter("bias", [outputs], fanIn(inputs));
    const pads = padsOf(scope, options, places);
    const given = bias === undefined ? [x, weight] : [x, weight, bias];
    return scope.builder.one("Conv", given, {
      kernel_shape: each(kernel),
      strides: each(stride),
      dilations: each(dilation),
      pads,
      group: groups,
    });
  });
}

/**
 * The zeros before each dim, followed by those after. For an even window, the extra zero comes
 * after.
 */
function padsOf(
  scope: Scope,
  { kernel, dilation = 1, padding = 0 }: ConvolutionOptions,
  places: number,
): number[] {
  if (padding !== "same") {
    if (!Number.isInteger(padding) || padding < 0) scope.fail(`padding of ${padding}`);
    return Array.from({ length: 2 * places }, () => padding);
  }
  const total = dilation * (kernel - 1);
  return Array.from({ length: 2 * places }, (_, i) =>
    i < places ? Math.floor(total / 2) : Math.ceil(total / 2),
  );
}

export interface PoolingOptions {
  readonly kernel: number;
  /** The step between windows. Default: the size of the window. */
  readonly stride?: number;
  /** The padding on each side. Default: 0. */
  readonly padding?: number;
}

/** The schemas of the options of a pool. */
const POOLING_OPTIONS: OptionKinds<PoolingOptions> = {
  kernel: count,
  stride: count.optional(),
  padding: finite.optional(),
};

/** The largest of each window of (batch, channels, height, width) or (batch, channels, length). */
export const maxPool = (scope: Scope, x: Value, options: PoolingOptions): Value =>
  pool("maxPool", scope, x, options);

/** The mean of each window; padding is not counted. */
export const averagePool = (scope: Scope, x: Value, options: PoolingOptions): Value =>
  pool("averagePool", scope, x, options);

function pool(
  layer: "maxPool" | "averagePool",
  scope: Scope,
  x: Value,
  options: PoolingOptions,
): Value {
  checkLayer(scope, layer, options, POOLING_OPTIONS);
  const { kernel, stride = kernel, padding = 0 } = options;
  const each = (size: number): number[] => x.shape.slice(2).map(() => size);
  if (!Number.isInteger(padding) || padding < 0 || 2 * padding > kernel) {
    scope.fail(
      `padding of ${padding} for windows of ${kernel}`,
      "Set it to at most half of the kernel.",
    );
  }
  return scope.within(() =>
    scope.builder.one(layer === "maxPool" ? "MaxPool" : "AveragePool", [x], {
      kernel_shape: each(kernel),
      strides: each(stride),
      pads: [...each(padding), ...each(padding)],
    }),
  );
}

/** The mean over all positions: (batch, channels, …) → (batch, channels). */
export function globalAveragePool(scope: Scope, x: Value): Value {
  const axes = x.shape.map((_, dim) => dim).slice(2);
  return scope.within(() => reduceMean(x, { axes, keepdims: false }));
}

function expectPlaces(scope: Scope, x: Value, places: number): void {
  if (x.shape.length === places + 2) return;
  const expected = places === 1 ? "(batch, channels, length)" : "(batch, channels, height, width)";
  scope.fail(`expected an input ${expected}, got ${formatShape(x.shape)}`);
}
