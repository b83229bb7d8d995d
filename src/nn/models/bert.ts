/** A bidirectional encoder of text that is trained to predict masked tokens. */
import { LockstepError } from "../../errors.ts";
import {
  add,
  cast,
  crossEntropy,
  equal,
  floor,
  gemm,
  less,
  mul,
  not,
  reshape,
  unsqueeze,
  where,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { checkOptions, count, type OptionKinds, rate, wholeNumber } from "../../options.ts";
import { defineModel } from "../define.ts";
import { normal, zeros } from "../initializers.ts";
import { activate } from "../layers/activation.ts";
import { dropout, uniformRows } from "../layers/dropout.ts";
import { embedding, linear } from "../layers/linear.ts";
import { layerNorm } from "../layers/normalization.ts";
import { additiveMask } from "../layers/positions.ts";
import { transformerBlock } from "../layers/transformer.ts";
import type { ModelDefinition } from "../model.ts";
import type { Scope } from "../scope.ts";

export interface BertOptions {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly context: number;
  /** The number of tokens, including the mask token. Default: 257, the bytes and the mask token. */
  readonly vocabulary?: number;
  /** The mask token. Default: the last of the vocabulary. */
  readonly maskToken?: number;
  /**
   * A token that pads short texts: no position attends to it, and it is never predicted. Default:
   * none.
   */
  readonly padding?: number;
  /**
   * The number of kinds of segments; if there are any, the batch has a field `segments`. Default:
   * 0.
   */
  readonly segments?: number;
  /** Default: 4 · width. */
  readonly hidden?: number;
  /** The fraction of tokens to predict. Default: 0.15. */
  readonly maskRate?: number;
  /** Default: 0. */
  readonly dropout?: number;
}

/** The schemas of the options of bert. */
const BERT_OPTIONS: OptionKinds<BertOptions> = {
  layers: count,
  width: count,
  heads: count,
  context: count,
  vocabulary: count.optional(),
  maskToken: wholeNumber.optional(),
  padding: wholeNumber.optional(),
  segments: wholeNumber.optional(),
  hidden: count.optional(),
  maskRate: rate.optional(),
  dropout: rate.optional(),
};

/**
 * BERT (Devlin et al. 2019) with its masked-language-model head. Batch fields: `ids` int32 (batch,
 * context), and `segments` if there are any. Of the tokens to predict, drawn in the graph, 80% are
 * masked, 10% replaced by random ones, and 10% left unchanged. In `eval` mode, the draw depends on
 * the ids of a sample only. Outputs: `loss`, over the tokens to predict, in nats, and `logits`
 * (batch, context, vocabulary) of the unmasked ids.
 */
export function bert(options: BertOptions): ModelDefinition {
  checkOptions("bert", options, BERT_OPTIONS);
  const settings = complete(options);
  const { context, vocabulary, segments: kinds } = settings;
  return defineModel("bert", (m) => {
    const shape = [m.batch, context];
    const ids = m.input("ids", shape, "int32");
    const segments = kinds > 0 ? m.input("segments", shape, "int32") : undefined;
    const { hidden, labels } = m.child("masking").within(() => hideTokens(m, ids, settings));
    const guesses = headOf(m, encode(m, hidden, segments, settings), settings);
    const rows = m.batch * context;
    const loss = crossEntropy(guesses, reshape(labels, [rows]), { ignoreIndex: IGNORED });
    const again = m.again();
    const logits = headOf(again, encode(again, ids, segments, settings), settings);
    return { loss, logits: reshape(logits, [...shape, vocabulary]) };
  });
}

const IGNORED = -100;

type Settings = Required<Omit<BertOptions, "padding">> & Pick<BertOptions, "padding">;

function complete(options: BertOptions): Settings {
  const { vocabulary = 257 } = options;
  const settings: Settings = {
    maskToken: vocabulary - 1,
    segments: 0,
    hidden: 4 * options.width,
    maskRate: 0.15,
    dropout: 0,
    ...options,
    vocabulary,
  };
  const { maskToken, padding = 0 } = settings;
  if (Math.max(maskToken, padding) >= vocabulary) {
    throw new LockstepError(
      "INVALID_OPTION",
      `bert: maskToken ${maskToken} and padding ${padding} are not both in a vocabulary of ${vocabulary}.`,
      { hint: "Tokens count from 0 to vocabulary - 1." },
    );
  }
  return settings;
}

/**
 * The ids with some of them masked, and the labels: the id where it is to be predicted, `IGNORED`
 * elsewhere.
 */
function hideTokens(m: Scope, ids: Value, s: Settings): { hidden: Value; labels: Value } {
  const draw = uniformRows(m, ids.shape, ids);
  const other = uniformRows(m, ids.shape, ids);
  const random = cast(floor(mul(other, s.vocabulary)), "int32");
  const padded = s.padding === undefined ? undefined : equal(ids, s.padding);
  const replaced = where(
    less(draw, 0.8 * s.maskRate),
    s.maskToken,
    where(less(draw, 0.9 * s.maskRate), random, ids),
  );
  const labels = where(less(draw, s.maskRate), ids, IGNORED);
  if (padded === undefined) return { hidden: replaced, labels };
  return { hidden: where(padded, ids, replaced), labels: where(padded, IGNORED, labels) };
}

function encode(m: Scope, ids: Value, segments: Value | undefined, s: Settings): Value {
  const initializer = normal(0.02);
  const { width, context } = s;
  const scope = m.child("embeddings");
  const tokens = { vocabulary: s.vocabulary, width, initializer };
  let x = embedding(scope.child("token"), ids, tokens);
  const places = scope.child("position");
  x = places.within(() => add(x, places.parameter("weight", [context, width], initializer)));
  if (segments !== undefined) {
    const kinds = { vocabulary: s.segments, width, initializer };
    x = add(x, embedding(scope.child("segment"), segments, kinds));
  }
  x = layerNorm(scope.child("norm"), x, { epsilon: 1e-12 });
  x = dropout(scope, x, s.dropout);
  const weights = { initializer, outInitializer: initializer, biasInitializer: zeros };
  const visible = s.padding === undefined ? undefined : not(equal(ids, s.padding));
  const mask = visible && additiveMask(unsqueeze(visible, [1, 2]), m.dtype);
  for (let layer = 0; layer < s.layers; layer++) {
    x = transformerBlock(m.child("blocks").child(layer), x, {
      attention: { heads: s.heads, dropout: s.dropout, ...weights, ...(mask && { mask }) },
      feedForward: { hidden: s.hidden, ...weights },
      normPlace: "after",
      epsilon: 1e-12,
      dropout: s.dropout,
    });
  }
  return x;
}

/** (batch · context, vocabulary): a layer, followed by the transpose of the token embedding. */
function headOf(m: Scope, x: Value, s: Settings): Value {
  const scope = m.child("head");
  return scope.within(() => {
    const rows = reshape(x, [m.batch * s.context, s.width]);
    const inner = linear(scope.child("transform"), rows, {
      outputs: s.width,
      initializer: normal(0.02),
      biasInitializer: zeros,
    });
    const normalized = layerNorm(scope.child("norm"), activate(inner, "gelu"), { epsilon: 1e-12 });
    const table = m.builder.value("embeddings.token.weight");
    const bias = scope.parameter("bias", [s.vocabulary], zeros);
    return gemm(normalized, table, bias, { transB: true });
  });
}
