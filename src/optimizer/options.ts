/** Checks the options of optimizers. */
import { LockstepError } from "../errors.ts";
import { notNegative, type OptionKinds } from "../options.ts";
import { type ParameterSelector, selector } from "./select.ts";

export interface CommonOptions {
  readonly learningRate?: number;
  readonly weightDecay?: number;
  /**
   * The parameters to which weight decay applies. Default: those that the model selects, which
   * usually are the matrices. PyTorch decays all: `{}`.
   */
  readonly decay?: ParameterSelector;
}

/**
 * The schemas of options that all optimizers have; `checked` checks the bounds of numbers next to
 * their defaults.
 */
export const COMMON_OPTIONS: OptionKinds<CommonOptions> = {
  learningRate: notNegative.optional(),
  weightDecay: notNegative.optional(),
  decay: selector.optional(),
};

interface Bounds {
  /** The least value. */
  readonly from: number;
  /** The value must be below this. */
  readonly below?: number;
}

/** Throws INVALID_OPTION unless `value` is a number within the bounds. */
export function checked(optimizer: string, name: string, value: number, bounds: Bounds): number {
  const below = bounds.below ?? Number.POSITIVE_INFINITY;
  if (value >= bounds.from && value < below) return value;
  const wanted =
    bounds.below === undefined ? `at least ${bounds.from}` : `in [${bounds.from}, ${below})`;
  throw new LockstepError(
    "INVALID_OPTION",
    `${optimizer}: ${name} must be a number ${wanted}, got ${value}.`,
    { fields: { optimizer, option: name, value } },
  );
}

/**
 * The learning rate, the weight decay and its selector, checked. `defaults` are the optimizer's
 * own. Throws INVALID_OPTION.
 */
export function checkedCommon(
  optimizer: string,
  options: CommonOptions,
  defaults: Required<Omit<CommonOptions, "decay">>,
) {
  const { learningRate = defaults.learningRate, weightDecay = defaults.weightDecay } = options;
  return {
    learningRate: checked(optimizer, "learningRate", learningRate, { from: 0 }),
    weightDecay: checked(optimizer, "weightDecay", weightDecay, { from: 0 }),
    decay: options.decay,
  };
}

export function checkedBetas(
  optimizer: string,
  betas: readonly [number, number],
): readonly [number, number] {
  for (const [index, beta] of betas.entries()) {
    checked(optimizer, `betas[${index}]`, beta, { from: 0, below: 1 });
  }
  return betas;
}
