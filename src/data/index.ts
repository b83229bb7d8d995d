export {
  type ArraysSource,
  arrays,
  type NpySource,
  npy,
  type SafetensorsSource,
  safetensors,
} from "./arrays.ts";
export { bigramBitsPerByte, gzipBitsPerByte } from "./baselines.ts";
export { type CsvOptions, type CsvSource, csv, ratings } from "./csv.ts";
export { type PlaceChange, sourceOf, withPlaces } from "./describe.ts";
export { type IdxSource, idxImages } from "./idx.ts";
export { type JsonlOptions, type JsonlSource, jsonl } from "./jsonl.ts";
export { type DataSource, openData } from "./open.ts";
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
  ValueRange,
} from "./source.ts";
export { type TextOptions, type TextSource, text } from "./text.ts";
export type { TokenDecoder, Tokenizer } from "./tokenizer.ts";
export { byteTokenizer } from "./tokenizer-bytes.ts";
export { tokenizerFromJson } from "./tokenizer-file.ts";
