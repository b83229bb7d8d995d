/**
 * The router of a mixture of experts: which experts each token chooses, with which weights, and
 * the losses that keep the choice even.
 */
import {
  cast,
  cumSum,
  div,
  mul,
  oneHot,
  reduceLogSumExp,
  reduceMax,
  reduceMean,
  reduceSum,
  softmax,
  square,
  topK as topKOf,
  unsqueeze,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import type { Initializer } from "../model.ts";
import type { Scope } from "../scope.ts";
import { linear } from "./linear.ts";

/**
 * The choice of each token. Dims: batch, tokens of a sample, then K choices or E experts. Where
 * parameters are of a half type, all of it is in float32, as in Switch Transformer.
 */
export interface Routing {
  /** float (B, L, K): what the output of each chosen expert is multiplied by. */
  readonly weights: Value;
  /** int64 (B, L, K): the chosen experts, the most probable first. */
  readonly choices: Value;
  /** float (B, L, K, E): 1 at the chosen expert, 0 elsewhere; without a gradient. */
  readonly chosen: Value;
  /** float (B, L, E): the softmax over the experts. */
  readonly probabilities: Value;
  /** float (B, L, E) */
  readonly logits: Value;
}

export interface RouterOptions {
  readonly experts: number;
  readonly topK: number;
  readonly renormalize: boolean;
  readonly initializer: Initializer;
}

/** @param tokens (B, L, width) */
export function route(scope: Scope, tokens: Value, options: RouterOptions): Routing {
  const { experts, topK, renormalize, initializer } = options;
  const own = linear(scope, tokens, { outputs: experts, bias: false, initializer });
  return scope.within(() => {
    const isHalf = own.dtype === "float16" || own.dtype === "bfloat16";
    const logits = isHalf ? cast(own, "float32") : own;
    const probabilities = softmax(logits);
    const { values, indices } = topKOf(probabilities, topK);
    const chosen = oneHot(indices, experts, logits.dtype);
    const weights = renormalize ? div(values, reduceSum(values, { axes: [-1] })) : values;
    return { weights, choices: indices, chosen, probabilities, logits };
  });
}

/**
 * The load-balancing loss: E · Σ f·P over the experts, where f is the share of the choices that an
 * expert gets and P its mean probability (Fedus et al. 2021; with several choices f is divided by
 * their number). It is 1 if both are even, and at most E. No gradient goes through f.
 * @param over what the means are taken of: each sequence, whose losses are then averaged (as GShard
 * does for its groups), or the whole batch
 */
export function balanceLoss(routing: Routing, over: "sequence" | "batch"): Value {
  const { chosen, probabilities } = routing;
  const [, , topK, experts] = chosen.shape as [number, number, number, number];
  const counts = reduceSum(chosen, { axes: [2], keepdims: false });
  const axes = over === "batch" ? [0, 1] : [1];
  const mean = (x: Value) => reduceMean(x, { axes, keepdims: false });
  const products = mul(mean(probabilities), mul(mean(counts), experts / topK));
  const sums = reduceSum(products, { axes: [-1], keepdims: false });
  return over === "batch" ? sums : reduceMean(sums, { keepdims: false });
}

/** The router z-loss: the mean of (log Σ exp logits)² over the tokens (Zoph et al. 2022). */
export function zLoss({ logits }: Routing): Value {
  const normalizers = reduceLogSumExp(logits, { axes: [-1], keepdims: false });
  return reduceMean(square(normalizers), { keepdims: false });
}

/** The choices that the busiest expert gets, by those that it gets if all get equally many. */
export function busiestLoad({ chosen }: Routing): Value {
  const experts = chosen.shape.at(-1) as number;
  const shares = reduceMean(chosen, { axes: [0, 1, 2], keepdims: false });
  return mul(reduceMax(shares, { keepdims: false }), experts);
}

/** float (B, L, E): the weight of each expert, 0 where it is not chosen. */
export function weightsByExpert({ weights, chosen }: Routing): Value {
  return reduceSum(mul(unsqueeze(weights, [-1]), chosen), { axes: [2], keepdims: false });
}

/** int64 (B, L, E): how many tokens before this one, in its sample, have chosen the expert. */
export function chosenBefore({ chosen, choices }: Routing): Value {
  const counts = cast(reduceSum(chosen, { axes: [2], keepdims: false }), choices.dtype);
  return cumSum(counts, 1, { exclusive: true });
}
