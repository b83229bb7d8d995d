export {
  type PositionRange,
  permutation,
  positionsOfStep,
  type SampleOrder,
  sampleOrder,
} from "./order.ts";
export type {
  Dataset,
  ModelInput,
  OpenRequest,
  SampleSet,
  SourceOptions,
  TextData,
  TextPart,
} from "./source.ts";
export type { TokenDecoder, Tokenizer } from "./tokenizer.ts";
