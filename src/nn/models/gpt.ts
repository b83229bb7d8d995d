/** A decoder-only transformer that predicts the next token of text. */
import { LockstepError } from "../../errors.ts";
import { add, crossEntropy, gemm, reshape } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import {
  checkOptions,
  choice,
  count,
  flag,
  group,
  type OptionKinds,
  positive,
  rate,
} from "../../options.ts";
import { defineModel } from "../define.ts";
import { normal, zeros } from "../initializers.ts";
import { dropout } from "../layers/dropout.ts";
import type { FeedForwardOptions } from "../layers/feed-forward.ts";
import { embedding, linear } from "../layers/linear.ts";
import {
  EXPERT_CHOICE,
  type ExpertChoice,
  type MixtureOfExpertsOptions,
} from "../layers/mixture-of-experts.ts";
import { type Norm, norm, transformerBlock } from "../layers/transformer.ts";
import type { ModelDefinition } from "../model.ts";
import type { Scope } from "../scope.ts";

export interface GptOptions {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  /** The number of heads of keys and values. Default: `heads`. */
  readonly kvHeads?: number;
  /** The number of tokens that the model sees at once. */
  readonly context: number;
  /** The number of tokens. Default: 256, one for each byte. */
  readonly vocabulary?: number;
  /** Default: `learned`. */
  readonly positions?: "learned" | "rotary";
  /** The base of rotary positions. Default: 10,000. */
  readonly rotaryBase?: number;
  /** Default: `gelu`. */
  readonly activation?: "gelu" | "gelu_tanh" | "quick_gelu" | "relu" | "swiglu";
  /**
   * The width of the feed-forward part. Default: 4 · width; with `swiglu` 8/3 · width, rounded up
   * to a multiple of 32.
   */
  readonly hidden?: number;
  /** Default: `layer`. */
  readonly norm?: Norm;
  /** Whether the head is the transpose of the token embedding. Default: true. */
  readonly tied?: boolean;
  /** Default: 0. */
  readonly dropout?: number;
  /** Whether linear layers and normalizations have biases. Default: true. */
  readonly bias?: boolean;
  /** See `AttentionOptions.queryBlock`. */
  readonly queryBlock?: number;
  /** Makes the feed-forward parts mixtures of experts, each `hidden` wide. Default: none. */
  readonly experts?: GptExperts;
}

/** The mixtures of experts of a model; `docs/experts.md` explains them. */
export interface GptExperts extends ExpertChoice {
  /** The number of experts of a block. */
  readonly count: number;
  /** Every which block has experts: with 2, the second, the fourth, and so on. Default: 1. */
  readonly every?: number;
}

const ACTIVATIONS = ["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"] as const;

/** The schemas of the options of gpt. */
const GPT_OPTIONS: OptionKinds<GptOptions> = {
  layers: count,
  width: count,
  heads: count,
  kvHeads: count.optional(),
  context: count,
  vocabulary: count.optional(),
  positions: choice("learned", "rotary").optional(),
  rotaryBase: positive.optional(),
  activation: choice(...ACTIVATIONS).optional(),
  hidden: count.optional(),
  norm: choice("layer", "rms").optional(),
  tied: flag.optional(),
  dropout: rate.optional(),
  bias: flag.optional(),
  queryBlock: count.optional(),
  experts: group({ count, every: count.optional(), ...EXPERT_CHOICE }).optional(),
};

/**
 * GPT-2's architecture (Radford et al. 2019) with the options of later models. Batch fields: `ids`
 * and `targets`, int32 (batch, context). Outputs: `loss` (mean cross-entropy of the targets, in
 * nats), `logits` (batch, context, vocabulary). Weights start like those of GPT-2: normal with
 * deviation 0.02, divided by √(2·layers) if they write to the residual stream; biases at zero.
 */
export function gpt(options: GptOptions): ModelDefinition {
  checkOptions("gpt", options, GPT_OPTIONS);
  const settings = complete(options);
  return defineModel("gpt", (m) => {
    for (const note of expertNotes(settings)) m.note(note);
    const shape = [m.batch, settings.context];
    const ids = m.input("ids", shape, "int32");
    const targets = m.input("targets", shape, "int32");
    const hidden = decode(m, ids, settings);
    const { logits, loss } = head(m, hidden, targets, settings);
    return { loss, logits: reshape(logits, [...shape, settings.vocabulary]) };
  });
}

type Optional = "queryBlock" | "experts";
type Settings = Required<Omit<GptOptions, Optional>> & Pick<GptOptions, Optional>;

function complete(options: GptOptions): Settings {
  const { width, heads, activation = "gelu" } = options;
  const wide = activation === "swiglu" ? 32 * Math.ceil((width * 8) / 3 / 32) : 4 * width;
  const settings: Settings = {
    kvHeads: heads,
    vocabulary: 256,
    positions: "learned",
    rotaryBase: 10_000,
    hidden: wide,
    norm: "layer",
    tied: true,
    dropout: 0,
    bias: true,
    ...options,
    activation,
  };
  if (width % heads !== 0) {
    const near = Math.max(1, Math.round(width / heads)) * heads;
    throw new LockstepError(
      "INVALID_OPTION",
      `gpt: a width of ${width} does not divide into ${heads} heads.`,
      { hint: `Set width to a multiple of heads, such as ${near}.` },
    );
  }
  const every = options.experts?.every ?? 1;
  if (every > options.layers) {
    throw new LockstepError(
      "INVALID_OPTION",
      `gpt: experts.every is ${every}, and with ${options.layers} layers no block has experts.`,
      { hint: "Set experts.every to at most layers, or leave out experts." },
    );
  }
  return settings;
}

/** (batch, context) ids → (batch, context, width), normalized. */
function decode(m: Scope, ids: Value, s: Settings): Value {
  const deviation = 0.02;
  const initializer = normal(deviation);
  const outInitializer = normal(deviation / Math.sqrt(2 * s.layers));
  const tokens = m.child("token_embedding");
  let x = embedding(tokens, ids, { vocabulary: s.vocabulary, width: s.width, initializer });
  if (s.positions === "learned") {
    const places = m.child("position_embedding");
    x = places.within(() => add(x, places.parameter("weight", [s.context, s.width], initializer)));
  }
  x = dropout(m.child("embedding_dropout"), x, s.dropout);
  const weights = { bias: s.bias, initializer, outInitializer, biasInitializer: zeros };
  for (let layer = 0; layer < s.layers; layer++) {
    x = transformerBlock(m.child("blocks").child(layer), x, {
      attention: {
        heads: s.heads,
        kvHeads: s.kvHeads,
        causal: true,
        dropout: s.dropout,
        ...weights,
        ...(s.positions === "rotary" ? { rotaryBase: s.rotaryBase } : {}),
        ...(s.queryBlock === undefined ? {} : { queryBlock: s.queryBlock }),
      },
      feedForward: feedForwardOf(layer, s, {
        hidden: s.hidden,
        activation: s.activation,
        ...weights,
      }),
      norm: s.norm,
      bias: s.bias,
      dropout: s.dropout,
    });
  }
  return norm(m.child("norm"), x, s.norm, { bias: s.bias });
}

/** The options of the feed-forward part of a block, or of its mixture of experts. */
function feedForwardOf(
  layer: number,
  { experts }: Settings,
  options: FeedForwardOptions,
): FeedForwardOptions | MixtureOfExpertsOptions {
  const { count: number, every = 1, ...choice } = experts ?? { count: 0 };
  const isMixture = number > 0 && (layer + 1) % every === 0;
  return isMixture ? { ...options, ...choice, experts: number } : options;
}

/** What the start of a run says of its experts. */
function expertNotes({ experts }: Settings): string[] {
  if (experts === undefined) return [];
  const { count: number, topK = 2, capacity, balance = 0.01, zLoss = 0 } = experts;
  const parts = [
    ...(balance > 0 ? [`${balance} times their load-balancing loss`] : []),
    ...(zLoss > 0 ? [`${zLoss} times their z-loss`] : []),
  ];
  const wasted = `Each of the ${number} experts of a block computes all tokens, because no capacity bounds them: that is ${Number((number / topK).toPrecision(3))} times the work of the ${topK} that a token goes through. With experts.capacity, such as 1.25, each computes its own tokens.`;
  return [
    ...(capacity === undefined && number > topK ? [wasted] : []),
    ...(parts.length > 0
      ? [
          `The training loss has ${parts.join(" and ")} for each block with experts; the validation loss does not.`,
        ]
      : []),
  ];
}

function head(
  m: Scope,
  hidden: Value,
  targets: Value,
  s: Settings,
): { logits: Value; loss: Value } {
  const scope = m.child("head");
  const rows = reshape(hidden, [m.batch * s.context, s.width]);
  return scope.within(() => {
    const logits = s.tied
      ? gemm(rows, m.builder.value("token_embedding.weight"), undefined, { transB: true })
      : linear(scope, rows, { outputs: s.vocabulary, bias: false, initializer: normal(0.02) });
    return { logits, loss: crossEntropy(logits, reshape(targets, [m.batch * s.context])) };
  });
}
