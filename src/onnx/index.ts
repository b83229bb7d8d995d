export { cutOf, type DimCut, specOf, type TensorOnDevices } from "./device-parts.ts";
export type {
  RawDeviceConfiguration,
  RawNodeDevices,
  RawShardingSpec,
} from "./device-schema.ts";
export {
  devicesOf,
  type FileConfiguration,
  type FileDevices,
  type NodeOnDevices,
} from "./devices.ts";
export {
  type DeviceAnnotations,
  type EncodeOptions,
  encodeModel,
  INTERNAL_IR_VERSION,
  INTERNAL_OPSET,
  NEWEST_OPSET,
  OLDEST_OPSET,
  opsetOf,
  toRawAttribute,
  toRawTensor,
} from "./encode.ts";
export {
  type DecodeGraphOptions,
  decodeGraph,
  encodeGraph,
  MIN_SHARED_BYTES,
  type SharedPlace,
} from "./graph-file.ts";
export { type DecodeOptions, decodeModel, type OnnxFile, readModel } from "./read.ts";
export {
  ATTRIBUTE_TYPES,
  type RawAttribute,
  type RawEntry,
  type RawFunction,
  type RawGraph,
  type RawNode,
  type RawOpsetId,
  type RawTensor,
  type RawType,
  type RawValueInfo,
} from "./schema.ts";
export { elementTypeName } from "./tensor.ts";
export { type WriteOptions, writeModel } from "./write.ts";
