/**
 * Normalization layers. Parameters: `weight` (ones) and `bias` (zeros); running statistics are
 * states.
 */
import {
  add,
  div,
  layerNormalization,
  mul,
  reduceMean,
  reshape,
  rmsNormalization,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { count, flag, notNegative, type OptionKinds } from "../../options.ts";
import { elementCount } from "../../tensor/index.ts";
import { ones, zeros } from "../initializers.ts";
import { checkLayer } from "../options.ts";
import type { Scope } from "../scope.ts";

export interface NormOptions {
  /** Added to the variance. Default: 1e-5. */
  readonly epsilon?: number;
  /** Default: true. */
  readonly bias?: boolean;
}

const epsilonKind = notNegative.optional();
/** The schemas of the options of the layers in this file. */
const LAYER_NORM_OPTIONS: OptionKinds<NormOptions> = {
  epsilon: epsilonKind,
  bias: flag.optional(),
};
const RMS_NORM_OPTIONS: OptionKinds<Pick<NormOptions, "epsilon">> = { epsilon: epsilonKind };
const GROUP_NORM_OPTIONS = { epsilon: epsilonKind, groups: count };
const BATCH_NORM_OPTIONS: OptionKinds<BatchNormOptions> = {
  epsilon: epsilonKind,
  momentum: notNegative.optional(),
};

/**
 * Normalizes to mean 0 and variance 1 over the last dim, then scales and shifts (Ba et al. 2016).
 */
export function layerNorm(scope: Scope, x: Value, options: NormOptions = {}): Value {
  checkLayer(scope, "layerNorm", options, LAYER_NORM_OPTIONS);
  const { epsilon = 1e-5, bias = true } = options;
  return scope.within(() => {
    const width = x.shape.at(-1) ?? scope.fail("layer normalization needs at least one dim");
    const weight = scope.parameter("weight", [width], ones);
    const shift = bias ? scope.parameter("bias", [width], zeros) : undefined;
    return layerNormalization(x, weight, shift, { axis: -1, epsilon });
  });
}

/** Normalizes to mean square 1 over the last dim, then scales (Zhang and Sennrich 2019). */
export function rmsNorm(scope: Scope, x: Value, options: Pick<NormOptions, "epsilon"> = {}): Value {
  checkLayer(scope, "rmsNorm", options, RMS_NORM_OPTIONS);
  const { epsilon = 1e-5 } = options;
  return scope.within(() => {
    const width = x.shape.at(-1) ?? scope.fail("RMS normalization needs at least one dim");
    return rmsNormalization(x, scope.parameter("weight", [width], ones), { axis: -1, epsilon });
  });
}

/**
 * Normalizes each sample of `x` (batch, channels, …) to mean 0 and variance 1 over `groups` groups
 * of channels (Wu and He 2018).
 */
export function groupNorm(
  scope: Scope,
  x: Value,
  options: Pick<NormOptions, "epsilon"> & { readonly groups: number },
): Value {
  checkLayer(scope, "groupNorm", options, GROUP_NORM_OPTIONS);
  const { groups, epsilon = 1e-5 } = options;
  return scope.within(() => {
    const channels = channelsOf(scope, x);
    if (channels % groups !== 0) {
      scope.fail(
        `${channels} channels do not divide into ${groups} groups`,
        "Set groups to a divisor of the channels.",
      );
    }
    expectSeveral(scope, elementCount(x.shape.slice(1)) / groups, "group of a sample");
    const flat = reshape(x, [
      x.shape[0] as number,
      groups,
      elementCount(x.shape.slice(1)) / groups,
    ]);
    const centred = sub(flat, reduceMean(flat, { axes: [2] }));
    const variance = reduceMean(mul(centred, centred), { axes: [2] });
    const normal = reshape(div(centred, sqrt(add(variance, epsilon))), x.shape);
    return scaleChannels(scope, normal);
  });
}

export interface BatchNormOptions extends Pick<NormOptions, "epsilon"> {
  /** The weight of the new statistics in the running ones at each step. Default: 0.1. */
  readonly momentum?: number;
}

/**
 * Normalizes each channel of `x` (batch, channels, …) to mean 0 and variance 1 over batch and
 * positions (Ioffe and Szegedy 2015). `train` mode uses the statistics of this batch, `eval` mode
 * the running ones (states `running_mean`, `running_var`; as in PyTorch, the running variance is
 * unbiased).
 *
 * A batch here is what one execution of the graph sees: with micro-batches or several workers, the
 * statistics are those of each micro-batch alone, and the running ones are averaged over
 * micro-batches. So the result depends on the size of a micro-batch, but not on the number of
 * workers.
 */
export function batchNorm(scope: Scope, x: Value, options: BatchNormOptions = {}): Value {
  checkLayer(scope, "batchNorm", options, BATCH_NORM_OPTIONS);
  const { epsilon = 1e-5, momentum = 0.1 } = options;
  return scope.within(() => {
    const channels = channelsOf(scope, x);
    const mean = scope.state("running_mean", [channels], zeros);
    const variance = scope.state("running_var", [channels], ones);
    if (scope.mode === "eval") {
      const weight = scope.parameter("weight", [channels], ones);
      const bias = scope.parameter("bias", [channels], zeros);
      const inputs = [x, weight, bias, mean.value, variance.value];
      return scope.builder.one("BatchNormalization", inputs, { epsilon });
    }
    const count = elementCount(x.shape) / channels;
    expectSeveral(scope, count, "channel of a micro-batch");
    const axes = x.shape.map((_, dim) => dim).filter((dim) => dim !== 1);
    const batchMean = reduceMean(x, { axes });
    const centred = sub(x, batchMean);
    const batchVariance = reduceMean(mul(centred, centred), { axes });
    const unbiased = mul(batchVariance, count / (count - 1));
    const mixed = (old: Value, now: Value) =>
      add(mul(old, 1 - momentum), mul(reshape(now, [channels]), momentum));
    mean.update(mixed(mean.value, batchMean));
    variance.update(mixed(variance.value, unbiased));
    return scaleChannels(scope, div(centred, sqrt(add(batchVariance, epsilon))));
  });
}

/** Throws for a single value: it is its own mean, so the output would not depend on the input. */
function expectSeveral(scope: Scope, values: number, what: string): void {
  if (values > 1) return;
  scope.fail(
    `there is one value for each ${what}, whose statistics say nothing`,
    "Use more samples in a micro-batch, larger groups, or another normalization.",
  );
}

function channelsOf(scope: Scope, x: Value): number {
  const channels = x.shape[1];
  if (channels !== undefined) return channels;
  return scope.fail(`needs an input (batch, channels, ...), got [${x.shape.join(", ")}]`);
}

function scaleChannels(scope: Scope, x: Value): Value {
  const channels = x.shape[1] as number;
  const shape = [channels, ...x.shape.slice(2).map(() => 1)];
  const weight = reshape(scope.parameter("weight", [channels], ones), shape);
  const bias = reshape(scope.parameter("bias", [channels], zeros), shape);
  return add(mul(x, weight), bias);
}
