export { defineModel, type ModelOutputs } from "./define.ts";
export type { DeviceConfiguration, ModelDevices, ParameterCut } from "./devices.ts";
export {
  type ElementRange,
  type InitialPiece,
  type InitialValue,
  initialKey,
  initialValue,
} from "./initialize.ts";
export { fanIn, glorotUniform, heNormal, normal, ones, uniform, zeros } from "./initializers.ts";
export { type Activation, activate } from "./layers/activation.ts";
export { type AttentionOptions, attention } from "./layers/attention.ts";
export {
  averagePool,
  type ConvolutionOptions,
  conv1d,
  conv2d,
  globalAveragePool,
  maxPool,
  type PoolingOptions,
} from "./layers/convolution.ts";
export { dropout, normalRows, uniformRows } from "./layers/dropout.ts";
export { type FeedForwardOptions, feedForward } from "./layers/feed-forward.ts";
export { type EmbeddingOptions, embedding, type LinearOptions, linear } from "./layers/linear.ts";
export {
  type ExpertChoice,
  type MixtureOfExpertsOptions,
  mixtureOfExperts,
} from "./layers/mixture-of-experts.ts";
export {
  type BatchNormOptions,
  batchNorm,
  groupNorm,
  layerNorm,
  type NormOptions,
  rmsNorm,
} from "./layers/normalization.ts";
export { additiveMask, causalMask, positions } from "./layers/positions.ts";
export {
  type GruOptions,
  gru,
  type LstmOptions,
  lstm,
  type RecurrentOptions,
  type RecurrentResult,
  type RnnOptions,
  rnn,
} from "./layers/recurrent.ts";
export {
  type Norm,
  norm,
  residual,
  type TransformerBlockOptions,
  transformerBlock,
} from "./layers/transformer.ts";
export type {
  BuildOptions,
  Initializer,
  Mode,
  Model,
  ModelDefinition,
  Parameter,
  State,
  StoredForm,
} from "./model.ts";
export { type BertOptions, bert } from "./models/bert.ts";
export { type ConvnetOptions, convnet } from "./models/convnet.ts";
export { type GptExperts, type GptOptions, gpt } from "./models/gpt.ts";
export { type MlpOptions, mlp, perceptron } from "./models/mlp.ts";
export { derivative, type PinnOptions, type Point, pinn } from "./models/pinn.ts";
export {
  type DlrmOptions,
  dlrm,
  type MatrixFactorizationOptions,
  matrixFactorization,
} from "./models/recommendation.ts";
export { type ResnetOptions, resnet } from "./models/resnet.ts";
export { accuracy, classify, flatten, regress } from "./models/task.ts";
export { type ParameterOptions, Scope, type StateHandle } from "./scope.ts";
