import type { OperatorDefinition } from "../../graph/index.ts";
import { batchNormalization } from "./batch-normalization.ts";
import { hardmax } from "./hardmax.ts";
import { layerNormalization } from "./layer-normalization.ts";
import { logSoftmax } from "./log-softmax.ts";
import { rmsNormalization } from "./rms-normalization.ts";
import { softmax } from "./softmax.ts";

export const normalization = {
  BatchNormalization: batchNormalization,
  Hardmax: hardmax,
  LayerNormalization: layerNormalization,
  LogSoftmax: logSoftmax,
  RMSNormalization: rmsNormalization,
  Softmax: softmax,
} satisfies Record<string, OperatorDefinition>;
