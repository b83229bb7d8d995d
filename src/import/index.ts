export { type DeclaredParameter } from "./declared.ts";
export { onnx } from "./define.ts";
export { withDevices } from "./devices.ts";
export { type DimOptions } from "./dims.ts";
export { foldConstants } from "./fold.ts";
export {
  type Imported,
  type ImportedGraph,
  type ImportIntoOptions,
  type ImportOptions,
  type ImportSink,
  importGraph,
  importInto,
} from "./import.ts";
export {
  formatInspection,
  type ImportedSummary,
  type InspectedOperator,
  type InspectedValue,
  type Inspection,
  inspectModel,
} from "./inspect.ts";
export { type InspectedWeight, type InspectedWeights } from "./inspect-weights.ts";
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
export type { OnnxOptions } from "./options.ts";
export { type SymbolicExport, type SymbolicOptions, toSymbolicBatch } from "./symbolic.ts";
