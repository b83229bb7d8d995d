/** Adam and AdamW: elementwise updates of thirteen nodes. */

import { add, div, mul, sqrt, sub } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { checkOptions, type OptionKinds, pair, positive } from "../options.ts";
import {
  forAll,
  type Rules,
  type StepContext,
  type UpdateContext,
  type Updated,
  type UpdateRule,
} from "./optimizer.ts";
import {
  COMMON_OPTIONS,
  type CommonOptions,
  checked,
  checkedBetas,
  checkedCommon,
} from "./options.ts";

export interface AdamOptions extends CommonOptions {
  readonly betas?: readonly [number, number];
  /** A number above 0, so that the update is zero where a gradient was always zero. */
  readonly eps?: number;
}

/** Throws INVALID_OPTION. */
export function adamwRules(options: AdamOptions): Rules {
  return forAll(adamwRule(options));
}

const ADAM_OPTIONS: OptionKinds<AdamOptions> = {
  ...COMMON_OPTIONS,
  betas: pair.optional(),
  eps: positive.optional(),
};

export function adamwRule(options: AdamOptions): UpdateRule {
  checkOptions("adamw", options, ADAM_OPTIONS);
  const [beta1, beta2] = checkedBetas("adamw", options.betas ?? [0.9, 0.999]);
  const eps = checked("adamw", "eps", options.eps ?? 1e-8, { from: Number.MIN_VALUE });
  return {
    name: "adamw",
    granularity: "element",
    ...checkedCommon("adamw", options, { learningRate: 1e-3, weightDecay: 1e-2 }),
    slots: [{ name: "exp_avg" }, { name: "exp_avg_sq" }],
    scalars: (context) => ({
      ...momentScalars(context, beta1, beta2, eps),
      firstScale: context.gradientScale * (1 - beta1),
      secondScale: context.gradientScale ** 2 * (1 - beta2),
      keep: 1 - context.learningRate * context.weightDecay,
    }),
    update: (context) => {
      const { parameter, gradient, decays } = context;
      const base = decays ? mul(parameter, context.scalar("keep")) : parameter;
      return moments(context, gradient, base, beta1, beta2);
    },
  };
}

/** Throws INVALID_OPTION. */
export function adamRules(options: AdamOptions): Rules {
  checkOptions("adam", options, ADAM_OPTIONS);
  const [beta1, beta2] = checkedBetas("adam", options.betas ?? [0.9, 0.999]);
  const eps = checked("adam", "eps", options.eps ?? 1e-8, { from: Number.MIN_VALUE });
  return forAll({
    name: "adam",
    granularity: "element",
    ...checkedCommon("adam", options, { learningRate: 1e-3, weightDecay: 0 }),
    slots: [{ name: "exp_avg" }, { name: "exp_avg_sq" }],
    scalars: (context) => ({
      ...momentScalars(context, beta1, beta2, eps),
      // With decay, the gradient is scaled before the penalty is added; without decay, both scales
      // are folded into one.
      firstScale: (context.weightDecay === 0 ? context.gradientScale : 1) * (1 - beta1),
      secondScale: (context.weightDecay === 0 ? context.gradientScale ** 2 : 1) * (1 - beta2),
      gradientScale: context.gradientScale,
      weightDecay: context.weightDecay,
    }),
    update: (context) => {
      const { parameter, gradient, decays } = context;
      const penalized = () =>
        add(
          mul(gradient, context.scalar("gradientScale")),
          mul(parameter, context.scalar("weightDecay")),
        );
      return moments(context, decays ? penalized() : gradient, parameter, beta1, beta2);
    },
  });
}

/**
 * `θ - η/c₁ · m / (√v/√c₂ + ε)` with c = 1 - βᵗ equals `θ - (η·√c₂/c₁) · m / (√v + ε·√c₂)`, so bias
 * correction needs no operation per element.
 */
function momentScalars(
  { step, learningRate }: StepContext,
  beta1: number,
  beta2: number,
  eps: number,
): { stepSize: number; epsilon: number } {
  const root = Math.sqrt(1 - beta2 ** step);
  return { stepSize: (learningRate * root) / (1 - beta1 ** step), epsilon: eps * root };
}

function moments(
  context: UpdateContext,
  gradient: Value,
  base: Value,
  beta1: number,
  beta2: number,
): Updated {
  const first = add(
    mul(context.slot("exp_avg"), beta1),
    mul(gradient, context.scalar("firstScale")),
  );
  const second = add(
    mul(context.slot("exp_avg_sq"), beta2),
    mul(mul(gradient, gradient), context.scalar("secondScale")),
  );
  const ratio = div(first, add(sqrt(second), context.scalar("epsilon")));
  return {
    parameter: sub(base, mul(ratio, context.scalar("stepSize"))),
    slots: { exp_avg: first, exp_avg_sq: second },
  };
}
