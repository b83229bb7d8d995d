/** Stochastic gradient descent with momentum, and Lion: elementwise updates with one slot. */
import { add, mul, sign, sub } from "../functional/index.ts";
import { checkOptions, flag, notNegative, type OptionKinds, pair } from "../options.ts";
import { forAll, type Rules, type SlotSpec } from "./optimizer.ts";
import {
  COMMON_OPTIONS,
  type CommonOptions,
  checked,
  checkedBetas,
  checkedCommon,
} from "./options.ts";

export interface SgdOptions extends CommonOptions {
  readonly momentum?: number;
  /**
   * The fraction of the gradient that does not enter the momentum buffer. It is not used at the
   * first step.
   */
  readonly dampening?: number;
  /** Whether Nesterov momentum is used. */
  readonly nesterov?: boolean;
}

const SGD_OPTIONS: OptionKinds<SgdOptions> = {
  ...COMMON_OPTIONS,
  momentum: notNegative.optional(),
  dampening: notNegative.optional(),
  nesterov: flag.optional(),
};

/** Throws INVALID_OPTION. */
export function sgdRules(options: SgdOptions): Rules {
  checkOptions("sgd", options, SGD_OPTIONS);
  const momentum = checked("sgd", "momentum", options.momentum ?? 0, { from: 0 });
  const dampening = checked("sgd", "dampening", options.dampening ?? 0, { from: 0 });
  const nesterov = options.nesterov ?? false;
  const slots: SlotSpec[] = momentum === 0 ? [] : [{ name: "momentum_buffer" }];
  return forAll({
    name: "sgd",
    granularity: "element",
    ...checkedCommon("sgd", options, { learningRate: 1e-3, weightDecay: 0 }),
    slots,
    scalars: ({ step, learningRate, gradientScale, weightDecay }) => ({
      learningRate,
      gradientScale,
      weightDecay,
      // As in PyTorch, the buffer starts with the gradient itself, without dampening.
      fresh: step === 1 ? 1 : 1 - dampening,
    }),
    update: (context) => {
      const { parameter, decays } = context;
      const scaled = mul(context.gradient, context.scalar("gradientScale"));
      const gradient = decays ? add(scaled, mul(parameter, context.scalar("weightDecay"))) : scaled;
      const learningRate = context.scalar("learningRate");
      if (momentum === 0)
        return { parameter: sub(parameter, mul(gradient, learningRate)), slots: {} };
      const fresh = dampening === 0 ? gradient : mul(gradient, context.scalar("fresh"));
      const buffer = add(mul(context.slot("momentum_buffer"), momentum), fresh);
      const direction = nesterov ? add(gradient, mul(buffer, momentum)) : buffer;
      return {
        parameter: sub(parameter, mul(direction, learningRate)),
        slots: { momentum_buffer: buffer },
      };
    },
  });
}

export interface LionOptions extends CommonOptions {
  readonly betas?: readonly [number, number];
}

const LION_OPTIONS: OptionKinds<LionOptions> = {
  ...COMMON_OPTIONS,
  betas: pair.optional(),
};

/** Throws INVALID_OPTION. */
export function lionRules(options: LionOptions): Rules {
  checkOptions("lion", options, LION_OPTIONS);
  const [beta1, beta2] = checkedBetas("lion", options.betas ?? [0.9, 0.99]);
  return forAll({
    name: "lion",
    granularity: "element",
    ...checkedCommon("lion", options, { learningRate: 1e-4, weightDecay: 0 }),
    slots: [{ name: "exp_avg" }],
    scalars: ({ learningRate, gradientScale, weightDecay }) => ({
      learningRate,
      directionScale: gradientScale * (1 - beta1),
      momentScale: gradientScale * (1 - beta2),
      keep: 1 - learningRate * weightDecay,
    }),
    update: (context) => {
      const { parameter, gradient, decays } = context;
      const moment = context.slot("exp_avg");
      const direction = sign(
        add(mul(moment, beta1), mul(gradient, context.scalar("directionScale"))),
      );
      const base = decays ? mul(parameter, context.scalar("keep")) : parameter;
      const next = add(mul(moment, beta2), mul(gradient, context.scalar("momentScale")));
      return {
        parameter: sub(base, mul(direction, context.scalar("learningRate"))),
        // Adding 0·direction makes the new moment depend on the direction, which reads the old
        // moment from the memory that the new one overwrites.
        slots: { exp_avg: add(next, mul(direction, 0)) },
      };
    },
  });
}
