/**
 * The messages of an ONNX file (onnx.proto), as interfaces and as tables for `wire.ts`. They
 * describe only the content of the file: nothing here knows what an operator means. Names follow
 * onnx.proto in camel case.
 */
import {
  deviceConfigurationTable,
  nodeDevicesTable,
  type RawDeviceConfiguration,
  type RawNodeDevices,
} from "./device-schema.ts";
import type { BytesInPieces, MessageTable } from "./wire.ts";

export interface RawModel {
  irVersion: number;
  producerName: string;
  producerVersion: string;
  domain: string;
  modelVersion: number;
  docString: string;
  graph: RawGraph | undefined;
  opsetImport: RawOpsetId[];
  metadataProps: RawEntry[];
  functions: RawFunction[];
  configuration: RawDeviceConfiguration[];
}

export interface RawOpsetId {
  /** Empty or `ai.onnx` for ONNX's own operators. */
  domain: string;
  version: number;
}

export interface RawEntry {
  key: string;
  value: string;
}

export interface RawGraph {
  name: string;
  docString: string;
  node: RawNode[];
  initializer: RawTensor[];
  sparseInitializer: RawSparseTensor[];
  input: RawValueInfo[];
  output: RawValueInfo[];
  valueInfo: RawValueInfo[];
  metadataProps: RawEntry[];
}

export interface RawNode {
  name: string;
  opType: string;
  domain: string;
  overload: string;
  docString: string;
  input: string[];
  output: string[];
  attribute: RawAttribute[];
  metadataProps: RawEntry[];
  deviceConfigurations: RawNodeDevices[];
}

export interface RawAttribute {
  name: string;
  /** One of `ATTRIBUTE_TYPES`. */
  type: number;
  refAttrName: string;
  f: number | undefined;
  i: number | undefined;
  s: Uint8Array | undefined;
  t: RawTensor | undefined;
  g: RawGraph | undefined;
  floats: number[];
  ints: number[];
  strings: Uint8Array[];
  tensors: RawTensor[];
  graphs: RawGraph[];
}

/**
 * `TensorProto`. The typed data fields keep their bytes from the file: of fixed width, or
 * consecutive varints.
 */
export interface RawTensor {
  name: string;
  dims: number[];
  dataType: number;
  segment: RawSegment | undefined;
  floatData: Uint8Array;
  int32Data: Uint8Array;
  int64Data: Uint8Array;
  doubleData: Uint8Array;
  uint64Data: Uint8Array;
  stringData: Uint8Array[];
  /** In pieces only where it is on its way to a file. */
  rawData: Uint8Array | BytesInPieces;
  externalData: RawEntry[];
  /** 0: the data is in the message; 1: it is in a file of its own. */
  dataLocation: number;
  docString: string;
}

export interface RawSegment {
  begin: number;
  end: number;
}

export interface RawSparseTensor {
  values: RawTensor | undefined;
  indices: RawTensor | undefined;
  dims: number[];
}

export interface RawValueInfo {
  name: string;
  docString: string;
  type: RawType | undefined;
}

export interface RawType {
  denotation: string;
  tensorType: RawTensorType | undefined;
  /** Types that are not tensors: only their presence is recorded. */
  sequenceType: Uint8Array | undefined;
  mapType: Uint8Array | undefined;
  opaqueType: Uint8Array | undefined;
  sparseTensorType: Uint8Array | undefined;
  optionalType: Uint8Array | undefined;
}

export interface RawTensorType {
  elemType: number;
  shape: RawShape | undefined;
}

export interface RawShape {
  dim: RawDim[];
}

/** The size of a dim, or its name; if both are absent, it is unknown. */
export interface RawDim {
  dimValue: number | undefined;
  dimParam: string;
  denotation: string;
}

export interface RawFunction {
  name: string;
  domain: string;
  overload: string;
  input: string[];
  output: string[];
  attribute: string[];
  attributeProto: RawAttribute[];
  node: RawNode[];
  opsetImport: RawOpsetId[];
  docString: string;
}

/** `AttributeProto.AttributeType`. */
export const ATTRIBUTE_TYPES = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
} as const;

const entry: MessageTable<RawEntry> = {
  key: { number: 1, kind: "string" },
  value: { number: 2, kind: "string" },
};

const opsetId: MessageTable<RawOpsetId> = {
  domain: { number: 1, kind: "string" },
  version: { number: 2, kind: "int" },
};

const segment: MessageTable<RawSegment> = {
  begin: { number: 1, kind: "int" },
  end: { number: 2, kind: "int" },
};

export const tensorTable: MessageTable<RawTensor> = {
  dims: { number: 1, kind: "ints" },
  dataType: { number: 2, kind: "int" },
  segment: { number: 3, kind: "message", of: () => segment },
  floatData: { number: 4, kind: "packed", width: 4 },
  int32Data: { number: 5, kind: "packed", width: 0 },
  stringData: { number: 6, kind: "byteLists" },
  int64Data: { number: 7, kind: "packed", width: 0 },
  name: { number: 8, kind: "string" },
  rawData: { number: 9, kind: "bytes" },
  doubleData: { number: 10, kind: "packed", width: 8 },
  uint64Data: { number: 11, kind: "packed", width: 0 },
  docString: { number: 12, kind: "string" },
  externalData: { number: 13, kind: "messages", of: () => entry },
  dataLocation: { number: 14, kind: "int" },
};

const sparseTensor: MessageTable<RawSparseTensor> = {
  values: { number: 1, kind: "message", of: () => tensorTable },
  indices: { number: 2, kind: "message", of: () => tensorTable },
  dims: { number: 3, kind: "ints" },
};

const dim: MessageTable<RawDim> = {
  dimValue: { number: 1, kind: "optionalInt" },
  dimParam: { number: 2, kind: "string" },
  denotation: { number: 3, kind: "string" },
};

const shape: MessageTable<RawShape> = { dim: { number: 1, kind: "messages", of: () => dim } };

const tensorType: MessageTable<RawTensorType> = {
  elemType: { number: 1, kind: "int" },
  shape: { number: 2, kind: "message", of: () => shape },
};

const type: MessageTable<RawType> = {
  tensorType: { number: 1, kind: "message", of: () => tensorType },
  sequenceType: { number: 4, kind: "optionalBytes" },
  mapType: { number: 5, kind: "optionalBytes" },
  denotation: { number: 6, kind: "string" },
  opaqueType: { number: 7, kind: "optionalBytes" },
  sparseTensorType: { number: 8, kind: "optionalBytes" },
  optionalType: { number: 9, kind: "optionalBytes" },
};

const valueInfo: MessageTable<RawValueInfo> = {
  name: { number: 1, kind: "string" },
  type: { number: 2, kind: "message", of: () => type },
  docString: { number: 3, kind: "string" },
};

const attribute: MessageTable<RawAttribute> = {
  name: { number: 1, kind: "string" },
  f: { number: 2, kind: "optionalFloat" },
  i: { number: 3, kind: "optionalInt" },
  s: { number: 4, kind: "optionalBytes" },
  t: { number: 5, kind: "message", of: () => tensorTable },
  g: { number: 6, kind: "message", of: () => graph },
  floats: { number: 7, kind: "floats" },
  ints: { number: 8, kind: "ints" },
  strings: { number: 9, kind: "byteLists" },
  tensors: { number: 10, kind: "messages", of: () => tensorTable },
  graphs: { number: 11, kind: "messages", of: () => graph },
  type: { number: 20, kind: "int" },
  refAttrName: { number: 21, kind: "string" },
};

const node: MessageTable<RawNode> = {
  input: { number: 1, kind: "strings" },
  output: { number: 2, kind: "strings" },
  name: { number: 3, kind: "string" },
  opType: { number: 4, kind: "string" },
  attribute: { number: 5, kind: "messages", of: () => attribute },
  docString: { number: 6, kind: "string" },
  domain: { number: 7, kind: "string" },
  overload: { number: 8, kind: "string" },
  metadataProps: { number: 9, kind: "messages", of: () => entry },
  deviceConfigurations: { number: 10, kind: "messages", of: () => nodeDevicesTable },
};

const graph: MessageTable<RawGraph> = {
  node: { number: 1, kind: "messages", of: () => node },
  name: { number: 2, kind: "string" },
  initializer: { number: 5, kind: "messages", of: () => tensorTable },
  docString: { number: 10, kind: "string" },
  input: { number: 11, kind: "messages", of: () => valueInfo },
  output: { number: 12, kind: "messages", of: () => valueInfo },
  valueInfo: { number: 13, kind: "messages", of: () => valueInfo },
  sparseInitializer: { number: 15, kind: "messages", of: () => sparseTensor },
  metadataProps: { number: 16, kind: "messages", of: () => entry },
};

const functionTable: MessageTable<RawFunction> = {
  name: { number: 1, kind: "string" },
  input: { number: 4, kind: "strings" },
  output: { number: 5, kind: "strings" },
  attribute: { number: 6, kind: "strings" },
  node: { number: 7, kind: "messages", of: () => node },
  docString: { number: 8, kind: "string" },
  opsetImport: { number: 9, kind: "messages", of: () => opsetId },
  domain: { number: 10, kind: "string" },
  attributeProto: { number: 11, kind: "messages", of: () => attribute },
  overload: { number: 13, kind: "string" },
};

export const modelTable: MessageTable<RawModel> = {
  irVersion: { number: 1, kind: "int" },
  producerName: { number: 2, kind: "string" },
  producerVersion: { number: 3, kind: "string" },
  domain: { number: 4, kind: "string" },
  modelVersion: { number: 5, kind: "int" },
  docString: { number: 6, kind: "string" },
  graph: { number: 7, kind: "message", of: () => graph },
  opsetImport: { number: 8, kind: "messages", of: () => opsetId },
  metadataProps: { number: 14, kind: "messages", of: () => entry },
  functions: { number: 25, kind: "messages", of: () => functionTable },
  configuration: { number: 26, kind: "messages", of: () => deviceConfigurationTable },
};
