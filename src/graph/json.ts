/**
 * Converts a graph to JSON and back without losing a bit: floats that JSON cannot express are
 * written as text, tensors in base64.
 */
import { LockstepError } from "../errors.ts";
import { byteLength, DTYPES, type DType, type Tensor, type TensorType } from "../tensor/index.ts";
import {
  type Attributes,
  type AttributeValue,
  type Graph,
  type Node,
  validateGraph,
} from "./graph.ts";

/** The type `float32[4, 8]` as a pair. */
export type TypeJson = readonly [dtype: DType, shape: readonly number[]];

interface TensorJson {
  readonly type: TypeJson;
  readonly base64: string;
}

export interface GraphJson {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly nodes: readonly NodeJson[];
  readonly constants: Readonly<Record<string, string>>;
  readonly types: Readonly<Record<string, TypeJson>>;
}

interface NodeJson {
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, AttributeJson>>;
}

type AttributeJson = readonly [kind: AttributeValue["kind"], value: unknown];

export function typeToJson({ dtype, shape }: TensorType): TypeJson {
  return [dtype, shape];
}

/** @throws INVALID_GRAPH */
export function typeFromJson([dtype, shape]: TypeJson): TensorType {
  const isShape =
    Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0);
  if (Object.hasOwn(DTYPES, dtype) && isShape) return { dtype, shape };
  throw new LockstepError("INVALID_GRAPH", `${JSON.stringify([dtype, shape])} is no tensor type.`);
}

export function graphToJson({ name, inputs, outputs, nodes, constants, types }: Graph): GraphJson {
  return {
    name,
    inputs,
    outputs,
    nodes: nodes.map((node) => ({ ...node, attributes: attributesToJson(node.attributes) })),
    constants: mapped(constants, ({ bytes }) => Buffer.from(bytes).toString("base64")),
    types: mapped(types, typeToJson),
  };
}

/** @throws INVALID_GRAPH if names, order or sizes are wrong */
export function graphFromJson(json: GraphJson): Graph {
  const types = new Map(
    Object.entries(json.types).map(([name, type]) => [name, typeFromJson(type)]),
  );
  const constants = new Map(
    Object.entries(json.constants).map(([name, base64]) => {
      const type = types.get(name);
      if (type === undefined) {
        throw new LockstepError("INVALID_GRAPH", `Graph "${json.name}": "${name}" has no type.`);
      }
      return [name, tensorOf(type, base64)];
    }),
  );
  const nodes = json.nodes.map((node): Node => {
    return { ...node, attributes: attributesFromJson(node.attributes) };
  });
  const { name, inputs, outputs } = json;
  return validateGraph({ name, inputs, outputs, nodes, constants, types });
}

function tensorOf(type: TensorType, base64: string): Tensor {
  const bytes = new Uint8Array(Buffer.from(base64, "base64"));
  if (bytes.byteLength === byteLength(type)) return { ...type, bytes };
  throw new LockstepError(
    "INVALID_GRAPH",
    `A constant of ${byteLength(type)} bytes comes with ${bytes.byteLength}.`,
  );
}

function attributesToJson(attributes: Attributes): Record<string, AttributeJson> {
  return mapped(new Map(Object.entries(attributes)), ({ kind, value }): AttributeJson => {
    switch (kind) {
      case "float":
        return [kind, floatToJson(value)];
      case "floats":
        return [kind, value.map(floatToJson)];
      case "tensor": {
        const json: TensorJson = {
          type: typeToJson(value),
          base64: Buffer.from(value.bytes).toString("base64"),
        };
        return [kind, json];
      }
      default:
        return [kind, value];
    }
  });
}

function attributesFromJson(json: Readonly<Record<string, AttributeJson>>): Attributes {
  return mapped(new Map(Object.entries(json)), ([kind, value]): AttributeValue => {
    switch (kind) {
      case "float":
        return { kind, value: floatFromJson(value) };
      case "floats":
        return { kind, value: (value as unknown[]).map(floatFromJson) };
      case "tensor": {
        const { type, base64 } = value as TensorJson;
        return { kind, value: tensorOf(typeFromJson(type), base64) };
      }
      default:
        return { kind, value } as AttributeValue;
    }
  });
}

/** JSON has no infinities, no NaN and no negative zero. */
function floatToJson(value: number): number | string {
  if (Object.is(value, -0)) return "-0";
  return Number.isFinite(value) ? value : String(value);
}

function floatFromJson(value: unknown): number {
  return typeof value === "number" ? value : Number(value);
}

function mapped<From, To>(
  from: ReadonlyMap<string, From>,
  change: (value: From) => To,
): Record<string, To> {
  return Object.fromEntries([...from].map(([name, value]) => [name, change(value)]));
}
