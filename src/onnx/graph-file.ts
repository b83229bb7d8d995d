/**
 * Writes a graph of ours as an `.onnx` file that restores exactly the same graph: its names, its
 * order, and the floats of attributes to the last bit. Large constants lie in a file that several
 * graphs share. Other files are read by `importGraph`.
 */
import { LockstepError } from "../errors.ts";
import type { Attributes, AttributeValue, Graph, GraphBuilder, Node } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { dtypeFromOnnx, type Tensor, type TensorType } from "../tensor/index.ts";
import { INTERNAL_OPSET, toRawModel } from "./encode.ts";
import { decodeModel } from "./read.ts";
import {
  ATTRIBUTE_TYPES,
  modelTable,
  type RawAttribute,
  type RawEntry,
  type RawNode,
  type RawTensor,
  type RawValueInfo,
} from "./schema.ts";
import { decodeTensor } from "./tensor.ts";
import { encodeMessage } from "./wire-write.ts";

/** Where the bytes of a tensor lie, in ONNX's terms. */
export interface SharedPlace {
  /** The name of a file beside the graph's file. */
  readonly file: string;
  readonly offset: number;
}

/** Constants with at least this many bytes are shared. */
export const MIN_SHARED_BYTES = 1024;
/**
 * The prefix of properties that hold exact floats: ONNX stores 32-bit floats, a graph has doubles,
 * and a node records a double that differs.
 */
const EXACT = "lockstep.float.";

/** The bytes of the file. `placeOf` returns the place of each large constant. */
export function encodeGraph(graph: Graph, placeOf: (constant: Tensor) => SharedPlace): Uint8Array {
  const model = toRawModel(graph, { opset: INTERNAL_OPSET });
  const { initializer = [], node = [] } = model.graph ?? {};
  for (const raw of initializer) {
    if (raw.rawData.byteLength < MIN_SHARED_BYTES) continue;
    const { file, offset } = placeOf(graph.constants.get(raw.name) as Tensor);
    raw.externalData = [
      { key: "location", value: file },
      { key: "offset", value: String(offset) },
      { key: "length", value: String(raw.rawData.byteLength) },
    ];
    raw.rawData = new Uint8Array(0);
    raw.dataLocation = 1;
  }
  for (const [at, { attributes }] of graph.nodes.entries()) {
    const exact = exactFloats(attributes);
    if (exact.length > 0) (node[at] as RawNode).metadataProps = exact;
  }
  return encodeMessage(modelTable, model);
}

function exactFloats(attributes: Attributes): RawEntry[] {
  return Object.entries(attributes).flatMap(([name, { kind, value }]) => {
    const numbers = kind === "float" ? [value] : kind === "floats" ? value : [];
    if (numbers.every((number) => Object.is(Math.fround(number), number))) return [];
    return [{ key: EXACT + name, value: numbers.join(" ") }];
  });
}

export interface DecodeGraphOptions {
  /** The name of the file, for messages. */
  readonly name: string;
  /** Returns the bytes of a large constant. Throws if there are none. */
  readonly shared: (place: SharedPlace, byteLength: number) => Uint8Array;
}

/**
 * The graph of a file that `encodeGraph` wrote. Nothing in the file is trusted: types are inferred
 * again, and checked like those of a graph under construction. Throws ONNX_PARSE, INVALID_GRAPH,
 * UNKNOWN_OPERATOR, SHAPE_MISMATCH, TYPE_MISMATCH.
 */
export function decodeGraph(bytes: Uint8Array, options: DecodeGraphOptions): Graph {
  const { model } = decodeModel(bytes, { name: options.name });
  const { graph } = model;
  const builder = newBuilder(graph.name);
  const wrong = wrongIn(options.name);
  if (model.opsetImport.find(({ domain }) => domain === "")?.version !== INTERNAL_OPSET) {
    wrong(`it does not ask for operator set ${INTERNAL_OPSET}`);
  }
  for (const input of graph.input) builder.input(input.name, typeOfInput(input, wrong));
  for (const raw of graph.initializer) {
    builder.namedConstant(raw.name, constantOf(raw, options));
  }
  for (const raw of graph.node) append(builder, raw, wrong);
  return builder.build(graph.output.map(({ name }) => valueIn(builder, name, wrong)));
}

type Wrong = (what: string) => never;

function wrongIn(name: string): Wrong {
  return (what) => {
    throw new LockstepError("ONNX_PARSE", `${name} holds no graph of lockstep: ${what}.`, {
      fields: { file: name },
    });
  };
}

function valueIn(builder: GraphBuilder, name: string, wrong: Wrong) {
  return builder.has(name) ? builder.value(name) : wrong(`nothing defines "${name}" in time`);
}

function typeOfInput({ name, type }: RawValueInfo, wrong: Wrong): TensorType {
  const { elemType = 0, shape } = type?.tensorType ?? {};
  const dtype = dtypeFromOnnx(elemType);
  if (dtype === undefined || shape === undefined) return wrong(`the input "${name}" has no type`);
  return {
    dtype,
    shape: shape.dim.map(({ dimValue }) => {
      const isSize = dimValue !== undefined && Number.isSafeInteger(dimValue) && dimValue >= 0;
      return isSize ? dimValue : wrong(`a dim of the input "${name}" has no size`);
    }),
  };
}

function constantOf(raw: RawTensor, { name, shared }: DecodeGraphOptions): Tensor {
  return decodeTensor(raw, `${name}: tensor "${raw.name}"`, ({ externalData }, byteLength) => {
    const entries = new Map(externalData.map(({ key, value }) => [key, value]));
    const place = { file: entries.get("location") ?? "", offset: Number(entries.get("offset")) };
    return shared(place, byteLength);
  });
}

function append(builder: GraphBuilder, raw: RawNode, wrong: Wrong): void {
  const exact = new Map(raw.metadataProps.map(({ key, value }) => [key, value]));
  const attributes = raw.attribute.map((attribute) => {
    return [attribute.name, attributeOf(attribute, exact.get(EXACT + attribute.name), wrong)];
  });
  const node: Node = {
    op: raw.domain === "" ? raw.opType : `${raw.domain}::${raw.opType}`,
    name: raw.name,
    inputs: raw.input,
    outputs: raw.output,
    attributes: Object.fromEntries(attributes) as Attributes,
  };
  if (node.outputs.includes("*")) wrong(`the node "${node.name}" names no output`);
  const inputs = node.inputs.map((name) =>
    name === "" ? undefined : valueIn(builder, name, wrong),
  );
  builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
}

const KINDS = new Map(Object.entries(ATTRIBUTE_TYPES).map(([kind, type]) => [type, kind]));
const utf8 = new TextDecoder();

function attributeOf(raw: RawAttribute, exact: string | undefined, wrong: Wrong): AttributeValue {
  const floats = exact?.split(" ").map(Number);
  const kind = KINDS.get(raw.type as never) as keyof typeof ATTRIBUTE_TYPES | undefined;
  switch (kind) {
    case "float":
      return { kind, value: floats?.[0] ?? raw.f ?? 0 };
    case "floats":
      return { kind, value: floats ?? raw.floats };
    case "int":
      return { kind, value: raw.i ?? 0 };
    case "ints":
      return { kind, value: raw.ints };
    case "string":
      return { kind, value: utf8.decode(raw.s) };
    case "strings":
      return { kind, value: raw.strings.map((bytes) => utf8.decode(bytes)) };
    case "tensor":
      if (raw.t === undefined) break;
      return { kind, value: decodeTensor(raw.t, `the attribute "${raw.name}"`) };
    default:
      break;
  }
  return wrong(`the attribute "${raw.name}" is of a kind that graphs do not have`);
}
