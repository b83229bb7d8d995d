import type { OperatorDefinition } from "../../graph/index.ts";
import { attention } from "./attention.ts";
import { batchNormalization } from "./batch-normalization.ts";
import { groupNormalization, instanceNormalization } from "./group-normalization.ts";
import { hardmax } from "./hardmax.ts";
import { negativeLogLikelihoodLoss, softmaxCrossEntropyLoss } from "./label-loss.ts";
import { layerNormalization } from "./layer-normalization.ts";
import { logSoftmax } from "./log-softmax.ts";
import { lpNormalization } from "./lp-normalization.ts";
import { lrn } from "./lrn.ts";
import { ringAttention, ringAttentionGradient } from "./ring-attention.ts";
import { rmsNormalization } from "./rms-normalization.ts";
import { rotaryEmbedding } from "./rotary-embedding.ts";
import { softmax } from "./softmax.ts";

export const normalization = {
  Attention: attention,
  BatchNormalization: batchNormalization,
  GroupNormalization: groupNormalization,
  Hardmax: hardmax,
  InstanceNormalization: instanceNormalization,
  LayerNormalization: layerNormalization,
  LogSoftmax: logSoftmax,
  LpNormalization: lpNormalization,
  LRN: lrn,
  "lockstep::RingAttention": ringAttention,
  "lockstep::RingAttentionGradient": ringAttentionGradient,
  NegativeLogLikelihoodLoss: negativeLogLikelihoodLoss,
  RMSNormalization: rmsNormalization,
  RotaryEmbedding: rotaryEmbedding,
  Softmax: softmax,
  SoftmaxCrossEntropyLoss: softmaxCrossEntropyLoss,
} satisfies Record<string, OperatorDefinition>;
