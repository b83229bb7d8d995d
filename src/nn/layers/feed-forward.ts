/** The feed-forward part of a transformer. */
import { mul } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { choice, finite, flag, type OptionKinds } from "../../options.ts";
import { fanIn } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";
import { ACTIVATIONS, type Activation, activate } from "./activation.ts";
import { linear } from "./linear.ts";

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
export const FEED_FORWARD_OPTIONS: OptionKinds<FeedForwardOptions> = {
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
