/**
 * Encodes attributes from plain values by an operator's specification, and reads them back with
 * their defaults.
 */
import { assert, LockstepError } from "../errors.ts";
import type { Tensor } from "../tensor/index.ts";
import type { Attributes, AttributeValue } from "./graph.ts";
import type { AttributeReader, AttributeSpec, OperatorSignature } from "./signature.ts";

/** What a caller of the builder writes: the kind comes from the operator's definition. */
export type AttributeInput =
  | number
  | boolean
  | string
  | readonly number[]
  | readonly string[]
  | Tensor;

/** Undefined values are left out, so that optional settings can be passed on. */
export type AttributeInputs = Readonly<Record<string, AttributeInput | undefined>>;

export function encodeAttributes(
  definition: OperatorSignature,
  inputs: AttributeInputs,
  where: string,
): Attributes {
  const attributes: Record<string, AttributeValue> = {};
  for (const [name, input] of Object.entries(inputs)) {
    if (input === undefined) continue;
    const spec = definition.attributes[name];
    if (spec === undefined) {
      throw new LockstepError(
        "INVALID_ATTRIBUTE",
        `${where}: ${definition.name} has no attribute "${name}".`,
        { hint: `It has: ${Object.keys(definition.attributes).join(", ") || "none"}.` },
      );
    }
    attributes[name] = encode(spec, input, `${where}: attribute "${name}"`);
  }
  return attributes;
}

function encode(spec: AttributeSpec, input: AttributeInput, where: string): AttributeValue {
  const wrong = (): never => {
    throw new LockstepError("INVALID_ATTRIBUTE", `${where} must be of kind ${spec.kind}.`);
  };
  const isList = (of: "number" | "string") =>
    Array.isArray(input) && input.every((item) => typeof item === of);
  switch (spec.kind) {
    case "int": {
      const value = typeof input === "boolean" ? Number(input) : input;
      return Number.isInteger(value) ? { kind: "int", value: value as number } : wrong();
    }
    case "float":
      return typeof input === "number" ? { kind: "float", value: input } : wrong();
    case "string":
      return typeof input === "string" ? { kind: "string", value: input } : wrong();
    case "ints":
      return isList("number") ? { kind: "ints", value: [...(input as number[])] } : wrong();
    case "floats":
      return isList("number") ? { kind: "floats", value: [...(input as number[])] } : wrong();
    case "strings":
      return isList("string") ? { kind: "strings", value: [...(input as string[])] } : wrong();
    case "tensor":
      return typeof input === "object" && "bytes" in input
        ? { kind: "tensor", value: input }
        : wrong();
  }
}

export function readAttributes(
  definition: OperatorSignature,
  attributes: Attributes,
  where: string,
): AttributeReader {
  const get = (name: string): unknown => {
    const spec = definition.attributes[name];
    assert(spec !== undefined, `${definition.name} declares no attribute "${name}"`);
    const value = attributes[name]?.value ?? spec.default;
    if (value === undefined || value === null) {
      throw new LockstepError(
        "INVALID_ATTRIBUTE",
        `${where}: ${definition.name} needs the attribute "${name}".`,
      );
    }
    return value;
  };
  return {
    has: (name) =>
      attributes[name] !== undefined || (definition.attributes[name]?.default ?? null) !== null,
    number: (name) => get(name) as number,
    string: (name) => get(name) as string,
    numbers: (name) => get(name) as readonly number[],
    strings: (name) => get(name) as readonly string[],
    tensor: (name) => get(name) as Tensor,
  };
}
