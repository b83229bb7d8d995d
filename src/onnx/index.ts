export {
  type EncodeOptions,
  encodeModel,
  INTERNAL_IR_VERSION,
  INTERNAL_OPSET,
  NEWEST_OPSET,
  OLDEST_OPSET,
} from "./encode.ts";
export { type DimOptions } from "./import/dims.ts";
export {
  type Imported,
  type ImportedGraph,
  type ImportIntoOptions,
  type ImportOptions,
  importGraph,
  importInto,
  type Parameter,
  type State,
} from "./import/import.ts";
export { type DecodeOptions, decodeModel, type OnnxFile, readModel } from "./read.ts";
export { type WriteOptions, writeModel } from "./write.ts";
