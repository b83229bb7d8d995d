/**
 * The block of a transformer: attention and a feed-forward part, each with a normalization and a
 * residual connection.
 */
import { add, mul } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import {
  anything,
  choice,
  finite,
  flag,
  notNegative,
  type OptionKinds,
  rate,
} from "../../options.ts";
import { fanIn } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";
import { ACTIVATIONS, type Activation, activate } from "./activation.ts";
import { type AttentionOptions, attention } from "./attention.ts";
import { dropout } from "./dropout.ts";
import { linear } from "./linear.ts";
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

export interface FeedForwardOptions {
  readonly hidden: number;
  /** The activation; `swiglu` is silu(gate(x)) · up(x) (Shazeer 2020). Default: `gelu`. */
  readonly activation?: Activation | "swiglu";
  readonly bias?: boolean;
  /** The initializer of `up` and `gate`. */
  readonly initializer?: Initializer;
  /** The initializer of `down`. */
  readonly outInitializer?: Initializer;
  readonly biasInitializer?: Initializer;
}

/** The schemas of the options of a feed-forward part. */
const FEED_FORWARD_OPTIONS: OptionKinds<FeedForwardOptions> = {
  hidden: finite,
  activation: choice(...ACTIVATIONS, "swiglu").optional(),
  bias: flag.optional(),
  initializer: initial,
  outInitializer: initial,
  biasInitializer: initial,
};

/** (…, width) → hidden → (…, width). Parts: `up`, `down`, and with `swiglu` `gate`. */
export function feedForward(scope: Scope, x: Value, options: FeedForwardOptions): Value {
  checkLayer(scope, "feedForward", options, FEED_FORWARD_OPTIONS);
  const width = x.shape.at(-1) ?? scope.fail("a feed-forward layer needs at least one dim");
  const { hidden, activation = "gelu", bias = true } = options;
  const { initializer = fanIn(width), outInitializer = fanIn(hidden) } = options;
  const { biasInitializer = fanIn(width) } = options;
  return scope.within(() => {
    const widen = (name: string): Value =>
      linear(scope.child(name), x, { outputs: hidden, bias, initializer, biasInitializer });
    const inner =
      activation === "swiglu"
        ? mul(activate(widen("gate"), "silu"), widen("up"))
        : activate(widen("up"), activation);
    const down = { outputs: width, bias, initializer: outInitializer, biasInitializer };
    return linear(scope.child("down"), inner, down);
  });
}

export interface TransformerBlockOptions {
  readonly attention: AttentionOptions;
  readonly feedForward: FeedForwardOptions;
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
    return part(mixed, "norm2", "feed_forward", (input) =>
      feedForward(scope.child("feed_forward"), input, options.feedForward),
    );
  });
}
