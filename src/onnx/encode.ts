/**
 * Encodes a `Graph` as an ONNX model, which the engine compiles, a run exports, and Netron opens.
 */
import { LockstepError } from "../errors.ts";
import type { Attributes, AttributeValue, Graph, Node } from "../graph/index.ts";
import { typeOf } from "../graph/index.ts";
import { operatorTable } from "../ops/index.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import { byteLength, DTYPES, type Tensor, type TensorType } from "../tensor/index.ts";
import type { RawDeviceConfiguration, RawNodeDevices } from "./device-schema.ts";
import {
  ATTRIBUTE_TYPES,
  modelTable,
  type RawAttribute,
  type RawGraph,
  type RawModel,
  type RawNode,
  type RawTensor,
  type RawValueInfo,
} from "./schema.ts";
import { encodeMessage } from "./wire-write.ts";

/** The version of ONNX's operators that internal graphs use. */
export const INTERNAL_OPSET = 23;
/** The last version for which ONNX Runtime 1.30 has the random operators. */
const DRAWING_OPSET = 21;
/** Operators that are newer than that version. */
const NEWER = new Set(["Attention", "RMSNormalization", "RotaryEmbedding"]);
export const INTERNAL_IR_VERSION = 11;
/** The oldest version that is imported. ONNX Runtime 1.30 runs operator sets up to 26. */
export const OLDEST_OPSET = 7;
export const NEWEST_OPSET = 26;

export interface EncodeOptions {
  /**
   * Whether the types of values between nodes are written too, for people who look at the file.
   * Default: false.
   */
  readonly valueTypes?: boolean;
  /** Dims of inputs and outputs that get a name instead of a size: `{ tokens: { 0: "batch" } }`. */
  readonly symbolicDims?: Readonly<Record<string, Readonly<Record<number, string>>>>;
  readonly metadata?: Readonly<Record<string, string>>;
  /**
   * The version of ONNX's operators that the file requires. Default: one for which an engine has
   * all operators.
   */
  readonly opset?: number;
  /** How devices share the graph. Default: nothing is said of it. */
  readonly devices?: DeviceAnnotations;
}

export interface DeviceAnnotations {
  readonly configurations: readonly RawDeviceConfiguration[];
  readonly of: (node: Node) => readonly RawNodeDevices[];
}

/** The schemas of the options of an encoding. */
export const ENCODE_OPTIONS: OptionKinds<EncodeOptions> = {
  valueTypes: flag.optional(),
  symbolicDims: anything.optional(),
  metadata: anything.optional(),
  opset: anything.optional(),
  devices: anything.optional(),
};

/**
 * The bytes of an `.onnx` file. Throws ONNX_UNSUPPORTED over 2 GiB: `writeModel` has no such limit.
 */
export function encodeModel(graph: Graph, options: EncodeOptions = {}): Uint8Array {
  checkOptions("encodeModel", options, ENCODE_OPTIONS);
  return encodeMessage(modelTable, toRawModel(graph, options));
}

export function toRawModel(graph: Graph, options: EncodeOptions = {}): RawModel {
  const domains = new Set<string>([""]);
  for (const node of graph.nodes) domains.add(splitOp(node.op).domain);
  return {
    irVersion: INTERNAL_IR_VERSION,
    producerName: "lockstep",
    producerVersion: "",
    domain: "",
    modelVersion: 0,
    docString: "",
    graph: toRawGraph(graph, options),
    opsetImport: [...domains].sort().map((domain) => ({
      domain,
      version: domain === "" ? (options.opset ?? opsetOf(graph)) : 1,
    })),
    metadataProps: Object.entries(options.metadata ?? {}).map(([key, value]) => ({ key, value })),
    functions: [],
    configuration: [...(options.devices?.configurations ?? [])],
  };
}

/**
 * The version of ONNX's operators that a file of this graph requires. Our operators mean the same
 * in both versions that are used.
 * @throws ONNX_UNSUPPORTED if no version has all of its operators
 */
export function opsetOf(graph: Graph): number {
  const drawing = graph.nodes.find(({ op }) => operatorTable.find(op)?.draws === true);
  if (drawing === undefined) return INTERNAL_OPSET;
  const newer = graph.nodes.find(({ op }) => NEWER.has(op));
  if (newer === undefined) return DRAWING_OPSET;
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `"${graph.name}" cannot be written for ONNX Runtime: it has ${drawing.op} ("${drawing.name}"), which is there up to operator set ` +
      `${DRAWING_OPSET}, and ${newer.op} ("${newer.name}"), which is there only later.`,
    { hint: "Make the noise an input of the model, or export it in an older operator set." },
  );
}

function toRawGraph(graph: Graph, options: EncodeOptions): RawGraph {
  const info = (name: string) =>
    valueInfo(name, typeOf(graph, name), options.symbolicDims?.[name] ?? {});
  const between = () =>
    graph.nodes
      .flatMap((node) => node.outputs)
      .filter((name) => name !== "" && !graph.outputs.includes(name));
  return {
    name: graph.name === "" ? "graph" : graph.name,
    docString: "",
    node: graph.nodes.map((node) => toRawNode(node, options.devices?.of(node) ?? [])),
    initializer: [...graph.constants].map(([name, tensor]) => toRawTensor(name, tensor)),
    sparseInitializer: [],
    input: graph.inputs.map(info),
    output: graph.outputs.map(info),
    valueInfo: options.valueTypes === true ? between().map(info) : [],
    metadataProps: [],
  };
}

export function splitOp(op: string): { domain: string; opType: string } {
  const at = op.indexOf("::");
  return at < 0
    ? { domain: "", opType: op }
    : { domain: op.slice(0, at), opType: op.slice(at + 2) };
}

function toRawNode(node: Node, devices: readonly RawNodeDevices[]): RawNode {
  const { domain, opType } = splitOp(node.op);
  return {
    name: node.name,
    opType,
    domain,
    overload: "",
    deviceConfigurations: [...devices],
    docString: "",
    input: [...node.inputs],
    output: [...node.outputs],
    attribute: toRawAttributes(node.attributes),
    metadataProps: [],
  };
}

function toRawAttributes(attributes: Attributes): RawAttribute[] {
  return Object.entries(attributes).map(([name, value]) => toRawAttribute(name, value));
}

/** An attribute without a value, of a type by its number in ONNX. */
export function emptyAttribute(name: string, type: number): RawAttribute {
  return {
    name,
    type,
    refAttrName: "",
    f: undefined,
    i: undefined,
    s: undefined,
    t: undefined,
    g: undefined,
    floats: [],
    ints: [],
    strings: [],
    tensors: [],
    graphs: [],
  };
}

export function toRawAttribute(name: string, value: AttributeValue): RawAttribute {
  const raw = emptyAttribute(name, ATTRIBUTE_TYPES[value.kind]);
  switch (value.kind) {
    case "float":
      raw.f = value.value;
      break;
    case "int":
      raw.i = value.value;
      break;
    case "string":
      raw.s = utf8.encode(value.value);
      break;
    case "floats":
      raw.floats = [...value.value];
      break;
    case "ints":
      raw.ints = [...value.value];
      break;
    case "strings":
      raw.strings = value.value.map((text) => utf8.encode(text));
      break;
    case "tensor":
      raw.t = toRawTensor("", value.value);
      break;
  }
  return raw;
}

const utf8 = new TextEncoder();

/** Converts a tensor to a message without copying its bytes. */
export function toRawTensor(name: string, tensor: Tensor): RawTensor {
  const { pieces } = tensor;
  return {
    name,
    dims: [...tensor.shape],
    dataType: DTYPES[tensor.dtype].onnx,
    segment: undefined,
    floatData: NO_BYTES,
    int32Data: NO_BYTES,
    int64Data: NO_BYTES,
    doubleData: NO_BYTES,
    uint64Data: NO_BYTES,
    stringData: [],
    rawData: pieces === undefined ? tensor.bytes : { byteLength: byteLength(tensor), pieces },
    externalData: [],
    dataLocation: 0,
    docString: "",
  };
}

const NO_BYTES = new Uint8Array(0);

function valueInfo(
  name: string,
  type: TensorType,
  symbolic: Readonly<Record<number, string>>,
): RawValueInfo {
  return {
    name,
    docString: "",
    type: {
      denotation: "",
      tensorType: {
        elemType: DTYPES[type.dtype].onnx,
        shape: {
          dim: type.shape.map((size, dim) => ({
            dimValue: symbolic[dim] === undefined ? size : undefined,
            dimParam: symbolic[dim] ?? "",
            denotation: "",
          })),
        },
      },
      sequenceType: undefined,
      mapType: undefined,
      opaqueType: undefined,
      sparseTensorType: undefined,
      optionalType: undefined,
    },
  };
}
