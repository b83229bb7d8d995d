/**
 * The block of a transformer: attention and a feed-forward part, each with a normalization and a
 * residual connection.
 */
import { add } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { anything, choice, flag, notNegative, type OptionKinds, rate } from "../../options.ts";
import { checkLayer } from "../options.ts";
import type { Scope } from "../scope.ts";
import { type AttentionOptions, attention } from "./attention.ts";
import { dropout } from "./dropout.ts";
import { type FeedForwardOptions, feedForward } from "./feed-forward.ts";
import { type MixtureOfExpertsOptions, mixtureOfExperts } from "./mixture-of-experts.ts";
import { layerNorm, rmsNorm } from "./normalization.ts";

export type Norm = "layer" | "rms";

/**
 * Either `layer` (with `weight` and `bias`) or `rms` (with `weight` only). Default of `bias`: true.
 */
export function norm(
  scope: Scope,
  x: Value,
  kind: Norm,
  options: { readonly epsilon?: number; readonly bias?: boolean } = {},
): Value {
  return kind === "layer"
    ? layerNorm(scope, x, options)
    : rmsNorm(scope, x, { epsilon: options.epsilon ?? 1e-5 });
}

/** x + f(x). */
export function residual(x: Value, body: (x: Value) => Value): Value {
  return add(x, body(x));
}

export interface TransformerBlockOptions {
  readonly attention: AttentionOptions;
  /** With `experts`, it is a mixture of experts. */
  readonly feedForward: FeedForwardOptions | MixtureOfExpertsOptions;
  /** Default: `layer`. */
  readonly norm?: Norm;
  /**
   * Whether each part normalizes its input (`before`) or its sum with the input (`after`, as in the
   * first transformers). Default: `before`.
   */
  readonly normPlace?: "before" | "after";
  /** Whether the normalizations have biases. Default: true. */
  readonly bias?: boolean;
  readonly epsilon?: number;
  /** The dropout rate of what each part adds. Default: 0. */
  readonly dropout?: number;
}

/** The schemas of the options of a block; its parts check their own options. */
const BLOCK_OPTIONS: OptionKinds<TransformerBlockOptions> = {
  attention: anything,
  feedForward: anything,
  norm: choice("layer", "rms").optional(),
  normPlace: choice("before", "after").optional(),
  bias: flag.optional(),
  epsilon: notNegative.optional(),
  dropout: rate.optional(),
};

/**
 * (batch, length, width) → the same shape. Parts: `norm1`, `attention`, `norm2`, `feed_forward`.
 */
export function transformerBlock(scope: Scope, x: Value, options: TransformerBlockOptions): Value {
  checkLayer(scope, "transformerBlock", options, BLOCK_OPTIONS);
  const { norm: kind = "layer", normPlace = "before", bias = true, epsilon = 1e-5 } = options;
  const rate = options.dropout ?? 0;
  const part = (input: Value, normName: string, name: string, body: (x: Value) => Value) => {
    const normalized = (value: Value): Value =>
      norm(scope.child(normName), value, kind, { bias, epsilon });
    const added = body(normPlace === "before" ? normalized(input) : input);
    const sum = add(input, dropout(scope.child(name), added, rate));
    return normPlace === "before" ? sum : normalized(sum);
  };
  return scope.within(() => {
    const mixed = part(x, "norm1", "attention", (input) =>
      attention(scope.child("attention"), input, options.attention),
    );
    return part(mixed, "norm2", "feed_forward", (input) => {
      const own = scope.child("feed_forward");
      return "experts" in options.feedForward
        ? mixtureOfExperts(own, input, options.feedForward)
        : feedForward(own, input, options.feedForward);
    });
  });
}
