/**
 * Optimizers as data: a kind and its options, which can be written to a file and read back. The
 * functions that compute their rules are found here by kind.
 */
import { LockstepError } from "../errors.ts";
import { type AdafactorOptions, adafactorRules } from "./adafactor.ts";
import { type AdamOptions, adamRules, adamwRules } from "./adam.ts";
import { type MuonOptions, muonRules } from "./muon.ts";
import type { Rules } from "./optimizer.ts";
import { type LionOptions, lionRules, type SgdOptions, sgdRules } from "./sgd.ts";

interface OptionsOf {
  readonly adafactor: AdafactorOptions;
  readonly adam: AdamOptions;
  readonly adamw: AdamOptions;
  readonly lion: LionOptions;
  readonly muon: MuonOptions;
  readonly sgd: SgdOptions;
}

export type OptimizerKind = keyof OptionsOf;

/** The optimizer of a run, as plain data. It is made by `adamw({…})` and the like. */
export type Optimizer = {
  readonly [Kind in OptimizerKind]: { readonly kind: Kind; readonly options: OptionsOf[Kind] };
}[OptimizerKind];

/**
 * The rules of each kind. The type names every kind, so none can be forgotten. Each throws
 * INVALID_OPTION.
 */
const RULES: { readonly [Kind in OptimizerKind]: (options: OptionsOf[Kind]) => Rules } = {
  adafactor: adafactorRules,
  adam: adamRules,
  adamw: adamwRules,
  lion: lionRules,
  muon: muonRules,
  sgd: sgdRules,
};

/** Throws INVALID_OPTION for wrong options, and for an unknown kind. */
export function rulesOf({ kind, options }: Optimizer): Rules {
  if (!Object.hasOwn(RULES, kind)) {
    throw new LockstepError("INVALID_OPTION", `There is no optimizer of the kind "${kind}".`, {
      hint: `There are: ${Object.keys(RULES).join(", ")}.`,
    });
  }
  return (RULES[kind] as (options: OptionsOf[OptimizerKind]) => Rules)(options);
}

/**
 * An optimizer of the named kind. Options from a file are checked like those of a run file. Throws
 * INVALID_OPTION.
 */
export function optimizerOf(kind: string, options: object): Optimizer {
  const optimizer = { kind, options } as Optimizer;
  rulesOf(optimizer);
  return optimizer;
}

/**
 * AdamW: weight decay separate from the gradient.
 * Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019 (arXiv:1711.05101).
 * Defaults are those of PyTorch (learning rate 1e-3, betas 0.9 and 0.999, eps 1e-8, weight decay
 * 1e-2), except that only the parameters that the model selects decay: matrices, not biases and
 * scales.
 */
export function adamw(options: AdamOptions = {}): Optimizer {
  return optimizerOf("adamw", options);
}

/**
 * Adam: weight decay added to the gradient. Kingma & Ba, "Adam: A Method for Stochastic
 * Optimization", 2015 (arXiv:1412.6980). Defaults are PyTorch's: as `adamw`, without weight decay.
 */
export function adam(options: AdamOptions = {}): Optimizer {
  return optimizerOf("adam", options);
}

/**
 * Adafactor. Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018
 * (arXiv:1804.04235), without momentum. Defaults are PyTorch's `torch.optim.Adafactor`: learning
 * rate 1e-2, beta2 decay -0.8, eps (none, 1e-3), clipping threshold 1, no weight decay.
 */
export function adafactor(options: AdafactorOptions = {}): Optimizer {
  return optimizerOf("adafactor", options);
}

/**
 * Lion: the sign of an interpolated momentum. Chen et al., "Symbolic Discovery of Optimization
 * Algorithms", 2023 (arXiv:2302.06675). Defaults are the paper's: learning rate 1e-4, betas 0.9 and
 * 0.99, no weight decay.
 */
export function lion(options: LionOptions = {}): Optimizer {
  return optimizerOf("lion", options);
}

/**
 * Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al.,
 * "Muon is Scalable for LLM Training", 2025 (arXiv:2502.16982). Defaults are PyTorch's
 * `torch.optim.Muon`: learning rate 1e-3, momentum 0.95 with Nesterov, five Newton–Schulz steps
 * with (3.4445, -4.775, 2.0315), weight decay 0.1; the iteration runs in the parameter's own type.
 */
export function muon(options: MuonOptions = {}): Optimizer {
  return optimizerOf("muon", options);
}

/**
 * Stochastic gradient descent. Momentum: Sutskever, Martens, Dahl & Hinton, "On the importance of
 * initialization and momentum in deep learning", 2013; in PyTorch's form, where the learning rate
 * multiplies the whole buffer. Defaults are PyTorch's: learning rate 1e-3, no momentum, no weight
 * decay.
 */
export function sgd(options: SgdOptions = {}): Optimizer {
  return optimizerOf("sgd", options);
}
