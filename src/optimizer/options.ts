/** Checks on what a user gives an optimizer. */
import { LockstepError } from "../errors.ts";
import { notNegative, type OptionKinds } from "../options.ts";
import { type ParameterSelector, selector } from "./select.ts";

export interface CommonOptions {
  readonly learningRate?: number;
  readonly weightDecay?: number;
  /** Which parameters decay. Default: those that the model says, matrices as a rule. PyTorch decays all: `{}`. */
  readonly decay?: ParameterSelector;
}

/** Of options that all optimizers take; the bounds of numbers are `checked` beside their defaults. */
export const COMMON_OPTIONS: OptionKinds<CommonOptions> = {
  learningRate: notNegative.optional(),
  weightDecay: notNegative.optional(),
  decay: selector.optional(),
};

interface Bounds {
  /** At least. */
  readonly from: number;
  /** Below. */
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

export function checkedBetas(
  optimizer: string,
  betas: readonly [number, number],
): readonly [number, number] {
  for (const [index, beta] of betas.entries()) {
    checked(optimizer, `betas[${index}]`, beta, { from: 0, below: 1 });
  }
  return betas;
}
