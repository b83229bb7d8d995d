/** Helpers for tests: models as messages, in any operator set. */
import assert from "node:assert/strict";
import * as ort from "onnxruntime-node";
import { emptyAttribute, toRawTensor } from "../onnx/encode.ts";
import { decodeModel } from "../onnx/read.ts";
import {
  ATTRIBUTE_TYPES,
  modelTable,
  type RawAttribute,
  type RawFunction,
  type RawGraph,
  type RawModel,
  type RawNode,
  type RawValueInfo,
} from "../onnx/schema.ts";
import { encodeMessage } from "../onnx/wire-write.ts";
import { interpret } from "../reference/index.ts";
import {
  DTYPES,
  type DType,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { importGraph } from "./import.ts";

export type Attribute = number | string | readonly number[] | Tensor | RawGraph | { float: number };

export function node(
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Readonly<Record<string, Attribute>> = {},
): RawNode {
  const [domain, opType] = op.includes("::") ? (op.split("::") as [string, string]) : ["", op];
  return {
    name: outputs[0] ?? "",
    opType,
    domain,
    overload: "",
    deviceConfigurations: [],
    metadataProps: [],
    docString: "",
    input: [...inputs],
    output: [...outputs],
    attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  };
}

export function attribute(name: string, value: Attribute | undefined, ref = ""): RawAttribute {
  const raw = { ...emptyAttribute(name, 0), refAttrName: ref };
  if (value === undefined) return raw;
  if (typeof value === "number") return { ...raw, type: ATTRIBUTE_TYPES.int, i: value };
  if (typeof value === "string") {
    return { ...raw, type: ATTRIBUTE_TYPES.string, s: Buffer.from(value) };
  }
  if (Array.isArray(value)) {
    const whole = value.every((item) => Number.isInteger(item));
    return whole
      ? { ...raw, type: ATTRIBUTE_TYPES.ints, ints: [...(value as number[])] }
      : { ...raw, type: ATTRIBUTE_TYPES.floats, floats: [...(value as number[])] };
  }
  if ("float" in value) return { ...raw, type: ATTRIBUTE_TYPES.float, f: value.float };
  if ("node" in value) return { ...raw, type: ATTRIBUTE_TYPES.graph, g: value };
  return { ...raw, type: ATTRIBUTE_TYPES.tensor, t: toRawTensor("", value as Tensor) };
}

export function info(
  name: string,
  dtype: DType,
  shape: readonly (number | string)[],
): RawValueInfo {
  return {
    name,
    docString: "",
    type: {
      denotation: "",
      tensorType: {
        elemType: DTYPES[dtype].onnx,
        shape: {
          dim: shape.map((size) => ({
            dimValue: typeof size === "number" ? size : undefined,
            dimParam: typeof size === "number" ? "" : size,
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

export interface ModelParts {
  readonly opset: number;
  readonly inputs?: Readonly<Record<string, readonly (number | string)[]>>;
  readonly inputType?: DType;
  readonly outputs: readonly string[];
  readonly nodes: readonly RawNode[];
  readonly weights?: Readonly<Record<string, Tensor>>;
  readonly functions?: readonly RawFunction[];
  readonly configuration?: RawModel["configuration"];
  readonly domains?: readonly string[];
}

export function graphOf(parts: Omit<ModelParts, "opset">): RawGraph {
  return {
    name: "test",
    docString: "",
    node: [...parts.nodes],
    initializer: Object.entries(parts.weights ?? {}).map(([name, tensor]) =>
      toRawTensor(name, tensor),
    ),
    sparseInitializer: [],
    input: Object.entries(parts.inputs ?? {}).map(([name, shape]) =>
      info(name, parts.inputType ?? "float32", shape),
    ),
    // The types of outputs are omitted: a reader infers them.
    output: parts.outputs.map((name) => ({ name, docString: "", type: undefined })),
    valueInfo: [],
    metadataProps: [],
  };
}

export function modelOf(parts: ModelParts): Uint8Array {
  const model: RawModel = {
    irVersion: parts.opset > 23 ? 12 : parts.opset > 20 ? 10 : 8,
    producerName: "test",
    producerVersion: "",
    domain: "",
    modelVersion: 0,
    docString: "",
    graph: graphOf(parts),
    opsetImport: [
      { domain: "", version: parts.opset },
      ...(parts.domains ?? []).map((domain) => ({ domain, version: 1 })),
    ],
    metadataProps: [],
    functions: [...(parts.functions ?? [])],
    configuration: [...(parts.configuration ?? [])],
  };
  return encodeMessage(modelTable, model);
}

/** Numbers without a pattern, between -2 and 2. */
export function someNumbers(shape: Shape, seed = 1): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = Array.from({ length: count }, (_, i) => 2 * Math.sin(12.9898 * (i + 1) * seed));
  return tensorFrom("float32", shape, values);
}

export type ImportCase = Omit<ModelParts, "outputs"> & { readonly outputs?: readonly string[] };

/**
 * Runs a small model unchanged in ONNX Runtime, and imported in the reference: the outputs must
 * agree.
 */
export async function checkImport(name: string, made: ImportCase): Promise<void> {
  const bytes = modelOf({ ...made, outputs: made.outputs ?? ["y"] });
  const feeds = Object.fromEntries(
    Object.entries(made.inputs ?? {}).map(([input, shape], i) => [
      input,
      someNumbers(shape as number[], i + 1),
    ]),
  );
  const expected = await inOrt(bytes, feeds);
  const { graph } = importGraph(decodeModel(bytes, { name }));
  const got = interpret(graph, feeds);
  for (const output of made.outputs ?? ["y"]) {
    const [ours, theirs] = [got[output], expected[output]];
    assert.ok(ours !== undefined && theirs !== undefined);
    assert.deepEqual(ours.shape, theirs.dims);
    for (const [i, value] of toNumbers(ours).entries()) {
      const want = Number(theirs.data[i]);
      const near = Math.abs(value - want) < 2e-5 * Math.max(1, Math.abs(want));
      assert.ok(near, `${value}, not ${want}`);
    }
  }
}

async function inOrt(bytes: Uint8Array, feeds: Record<string, Tensor>) {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  const results = await session.run(
    Object.fromEntries(
      Object.entries(feeds).map(([name, { shape, bytes: data }]) => [
        name,
        new ort.Tensor("float32", new Float32Array(data.slice().buffer), shape),
      ]),
    ),
  );
  return results;
}
