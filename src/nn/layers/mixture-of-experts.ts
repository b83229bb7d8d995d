/**
 * A mixture of experts (Shazeer et al. 2017): feed-forward parts of which each token goes through a
 * few, chosen by a router. One batched product computes all experts.
 */
import {
  add,
  cast,
  matmul,
  mul,
  reduceMean,
  reduceSum,
  reshape,
  sub,
  transpose,
  unsqueeze,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { choice, count, flag, notNegative, type OptionKinds, positive } from "../../options.ts";
import { formatShape } from "../../tensor/index.ts";
import { fanIn } from "../initializers.ts";
import { checkLayer } from "../options.ts";
import type { Scope } from "../scope.ts";
import { activate } from "./activation.ts";
import { collect, dispatch, placesOf } from "./dispatch.ts";
import { FEED_FORWARD_OPTIONS, type FeedForwardOptions } from "./feed-forward.ts";
import {
  balanceLoss,
  busiestLoad,
  type Routing,
  route,
  weightsByExpert,
  zLoss,
} from "./routing.ts";

/** How tokens choose among experts. */
export interface ExpertChoice {
  /** The number of experts that each token goes through. Default: 2. */
  readonly topK?: number;
  /**
   * The capacity factor: an expert computes at most capacity · topK · tokens / experts of the
   * tokens of a sample, rounded up. What is beyond adds nothing for this expert, so that only the
   * residual connection carries it on. Tokens are counted within each sample and in their order,
   * so micro-batches, workers and later tokens do not matter. Default: no bound ("dropless"); each
   * expert then computes all tokens, which takes experts / topK times the work.
   */
  readonly capacity?: number;
  /**
   * Whether the weights of the chosen experts add up to 1 (as in Mixtral), or are the router's
   * probabilities (as in Switch Transformer). Default: true, but false with a `topK` of 1, where
   * the router would learn nothing.
   */
  readonly renormalize?: boolean;
  /** The factor of the load-balancing loss, which is added to the model's loss. Default: 0.01. */
  readonly balance?: number;
  /**
   * What the load-balancing loss is taken of. It is a product of means: `sequence` takes those of
   * each sample, and averages the losses; `batch` takes those of the whole batch of a step, over
   * all micro-batches and workers, which costs a second forward pass where there are several
   * micro-batches. Neither depends on how the batch is divided. Default: `sequence`.
   */
  readonly balanceOver?: "sequence" | "batch";
  /** The factor of the router z-loss, which is added to the model's loss. Default: 0. */
  readonly zLoss?: number;
}

/** The schemas of the options that say how tokens choose. */
export const EXPERT_CHOICE: OptionKinds<ExpertChoice> = {
  topK: count.optional(),
  capacity: positive.optional(),
  renormalize: flag.optional(),
  balance: notNegative.optional(),
  balanceOver: choice("sequence", "batch").optional(),
  zLoss: notNegative.optional(),
};

/** `hidden`, `activation`, `bias` and the initializers are those of each expert. */
export interface MixtureOfExpertsOptions extends FeedForwardOptions, ExpertChoice {
  /** The number of experts. */
  readonly experts: number;
}

/** The schemas of the options of a mixture of experts. */
const MIXTURE_OPTIONS: OptionKinds<MixtureOfExpertsOptions> = {
  ...FEED_FORWARD_OPTIONS,
  ...EXPERT_CHOICE,
  experts: count,
};

/**
 * (batch, …, width) → the same shape. Parameters: `router.weight` [width, experts]; of all experts
 * together `experts.up.weight` [experts, width, hidden], `experts.down.weight` [experts, hidden,
 * width], with `swiglu` `experts.gate.weight`; biases [experts, 1, hidden or width]. The losses of
 * the router are added to the loss of the model in training, and the measure `expert_load` tells
 * the share of the busiest expert, times their number; with a capacity, `dropped_choices` is the
 * share of choices that were beyond it.
 */
export function mixtureOfExperts(scope: Scope, x: Value, options: MixtureOfExpertsOptions): Value {
  checkLayer(scope, "mixtureOfExperts", options, MIXTURE_OPTIONS);
  const { experts, topK = 2, balance = 0.01, balanceOver = "sequence", capacity } = options;
  const { renormalize = topK > 1, zLoss: zFactor = 0 } = options;
  checkChoice(scope, experts, topK, renormalize);
  const tokens = tokensOf(scope, x);
  const width = x.shape.at(-1) as number;
  return scope.within(() => {
    const { initializer = fanIn(width) } = options;
    const router = { experts, topK, renormalize, initializer };
    const routing = route(scope.child("router"), tokens, router);
    const weigh = (loss: Value, by: number) => scope.addLoss(cast(mul(loss, by), x.dtype));
    if (balance > 0) weigh(balanceLoss(routing, balanceOver), balance);
    if (zFactor > 0) weigh(zLoss(routing), zFactor);
    scope.addMeasure("expert_load", busiestLoad(routing));
    const bank = scope.child("experts");
    const made =
      capacity === undefined
        ? throughAll(bank, tokens, routing, options)
        : throughSome(bank, tokens, routing, { ...options, capacity, topK });
    return reshape(made, x.shape);
  });
}

function checkChoice(scope: Scope, experts: number, topK: number, renormalize: boolean): void {
  if (topK > experts) {
    scope.fail(
      `each token would go through ${topK} of ${experts} experts`,
      "Set topK to at most the number of experts.",
    );
  }
  if (topK === 1 && experts > 1 && renormalize) {
    scope.fail(
      "with a topK of 1 and renormalize every weight is 1, and the router would learn nothing",
      "Leave out renormalize, or set topK to 2 or more.",
    );
  }
}

/** (batch, …, width) → (batch, tokens, width) */
function tokensOf(scope: Scope, x: Value): Value {
  const [batch = 0, ...rest] = x.shape;
  const width = rest.pop();
  if (width === undefined) {
    return scope.fail(`expected an input (batch, …, width), got ${formatShape(x.shape)}`);
  }
  return reshape(x, [batch, rest.reduce((a, b) => a * b, 1), width]);
}

/** Every expert computes every token, and the weights of those that are not chosen are 0. */
function throughAll(
  bank: Scope,
  tokens: Value,
  routing: Routing,
  options: MixtureOfExpertsOptions,
): Value {
  const [batch, length, width] = tokens.shape as [number, number, number];
  const made = compute(bank, reshape(tokens, [batch * length, width]), options);
  const weights = cast(weightsByExpert(routing), tokens.dtype);
  const columns = transpose(reshape(weights, [batch * length, options.experts, 1]), [1, 0, 2]);
  const sum = reduceSum(mul(made, columns), { axes: [0], keepdims: false });
  return reshape(sum, tokens.shape);
}

/** Each expert computes the tokens that chose it, up to its capacity. */
function throughSome(
  bank: Scope,
  tokens: Value,
  routing: Routing,
  options: MixtureOfExpertsOptions & { readonly capacity: number; readonly topK: number },
): Value {
  const { experts, capacity, topK } = options;
  const length = tokens.shape[1] as number;
  if (length === 1) {
    bank.fail(
      "a capacity counts the tokens of a sample, and here a sample is one token",
      "Leave out capacity, or give the layer (batch, tokens, width).",
    );
  }
  const most = Math.min(length, Math.ceil((capacity * topK * length) / experts));
  const places = placesOf(routing, most);
  const kept = reduceMean(cast(places.isKept, tokens.dtype), { keepdims: false });
  bank.addMeasure("dropped_choices", sub(1, kept));
  const made = compute(bank, dispatch(tokens, routing, places), options);
  const weights = unsqueeze(cast(routing.weights, tokens.dtype), [-1]);
  const weighted = mul(collect(made, routing, places), weights);
  return reduceSum(weighted, { axes: [2], keepdims: false });
}

/** (rows, width) or (experts, rows, width) → (experts, rows, width) */
function compute(bank: Scope, rows: Value, options: MixtureOfExpertsOptions): Value {
  const width = rows.shape.at(-1) as number;
  const { experts, hidden, activation = "gelu", bias = true } = options;
  const { initializer = fanIn(width), outInitializer = fanIn(hidden) } = options;
  const { biasInitializer = fanIn(width) } = options;
  const product = (name: string, input: Value, outputs: number): Value => {
    const part = bank.child(name);
    const inputs = input.shape.at(-1) as number;
    const first = name === "down" ? outInitializer : initializer;
    const weight = part.parameter("weight", [experts, inputs, outputs], first);
    return part.within(() => {
      const made = matmul(input, weight);
      if (!bias) return made;
      const shape = [experts, 1, outputs];
      return add(made, part.parameter("bias", shape, biasInitializer, { decay: false }));
    });
  };
  return bank.within(() => {
    const widen = (name: string) => product(name, rows, hidden);
    const inner =
      activation === "swiglu"
        ? mul(activate(widen("gate"), "silu"), widen("up"))
        : activate(widen("up"), activation);
    return product("down", inner, width);
  });
}
