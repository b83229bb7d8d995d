export { type OnnxOptions, onnx } from "./define.ts";
export {
  type EncodeOptions,
  encodeModel,
  INTERNAL_IR_VERSION,
  INTERNAL_OPSET,
  NEWEST_OPSET,
  OLDEST_OPSET,
  opsetOf,
} from "./encode.ts";
export {
  type DecodeGraphOptions,
  decodeGraph,
  encodeGraph,
  MIN_SHARED_BYTES,
  type SharedPlace,
} from "./graph-file.ts";
export type { DeclaredParameter } from "./import/declared.ts";
export { type DimOptions } from "./import/dims.ts";
export { foldConstants } from "./import/fold.ts";
export {
  type Imported,
  type ImportedGraph,
  type ImportIntoOptions,
  type ImportOptions,
  type ImportSink,
  importGraph,
  importInto,
} from "./import/import.ts";
export {
  formatInspection,
  type ImportedSummary,
  type InspectedOperator,
  type InspectedValue,
  type Inspection,
  inspectModel,
} from "./inspect.ts";
export type { InspectedWeight, InspectedWeights } from "./inspect-weights.ts";
export {
  type BinaryClassified,
  binaryCrossEntropyWithLogits,
  type Classified,
  type Compared,
  type ComparedLoss,
  crossEntropy,
  huber,
  l1,
  mse,
  type OnnxLoss,
  type OnnxLossContext,
} from "./losses.ts";
export { type DecodeOptions, decodeModel, type OnnxFile, readModel } from "./read.ts";
export { type SymbolicExport, type SymbolicOptions, toSymbolicBatch } from "./symbolic.ts";
export { type WriteOptions, writeModel } from "./write.ts";
