/** The context of import rules, and a check of the attributes that a node may keep. */
import {
  type Attributes,
  encodeAttributes,
  type OperatorDefinition,
  type Value,
} from "../graph/index.ts";
import { INTERNAL_OPSET } from "../onnx/index.ts";
import { operatorTable } from "../ops/index.ts";
import { scalar, toNumbers } from "../tensor/index.ts";
import type { NodeImporter } from "./node-importer.ts";
import type { ImportNode, RuleContext } from "./upgrade/index.ts";

/** The context of the rules for `node`. */
export function ruleContext(importer: NodeImporter, node: ImportNode): RuleContext {
  const { builder } = importer;
  const fail = (what: string, hint?: string): never => importer.fail(what, hint);
  const attribute = (name: string) => node.attributes[name];
  const pick = <T>(name: string, kind: string, otherwise: T): T => {
    const value = attribute(name);
    if (value === undefined) return otherwise;
    return value.kind === kind
      ? (value.value as T)
      : fail(`attribute "${name}" is not of kind ${kind}`);
  };
  const input = (index: number): Value => {
    const value = node.inputs[index] ?? fail(`${node.op} has no input ${index}`);
    return importer.tensor(value, `input ${index}`);
  };
  const constant = (index: number) => {
    const value = node.inputs[index];
    return value && builder.constantOf(value);
  };
  const emit: RuleContext["emit"] = (op, inputs, attributes = {}, outputs = 1) => {
    const definition = operatorTable.find(op);
    const encoded = definition ? encodeAttributes(definition, attributes, node.name) : {};
    const name = importer.fresh(`${node.name}/${op}`);
    const names =
      outputs === 1 ? [name] : Array.from({ length: outputs }, (_, i) => `${name}.${i}`);
    const built = importer.build({
      op,
      name,
      inputs,
      attributes: encoded,
      outputs: names,
      opset: INTERNAL_OPSET,
    });
    return built as Value[];
  };
  return {
    node,
    builder,
    input,
    constant,
    numbers: (index) => {
      input(index);
      const tensor = constant(index);
      if (tensor !== undefined) return toNumbers(tensor);
      return fail(
        `input ${index} of ${node.op} is not known before the graph runs`,
        "Shapes are static: a value that determines a shape must follow from the shapes of the inputs.",
      );
    },
    attribute,
    int: (name, otherwise) => pick(name, "int", otherwise),
    float: (name, otherwise) => pick(name, "float", otherwise),
    string: (name, otherwise) => pick(name, "string", otherwise),
    ints: (name) => pick<readonly number[] | undefined>(name, "ints", undefined),
    emit,
    one: (op, inputs, attributes) => emit(op, inputs, attributes)[0] as Value,
    elements: (index) =>
      importer.elements(node.inputs[index] ?? fail(`${node.op} has no input ${index}`)),
    sequence: (values) => importer.sequence(values),
    scalar: (like, number) => builder.constant(scalar(like.dtype, number)),
    fail,
  };
}

/**
 * The attributes that the definition has, of the kinds that it states. Other attributes must have a
 * value without effect.
 */
export function checkAttributes(
  importer: NodeImporter,
  node: ImportNode,
  definition: OperatorDefinition,
): Attributes {
  const kept = Object.entries(node.attributes).filter(([name, value]) => {
    const spec = definition.attributes[name];
    if (spec !== undefined) {
      if (spec.kind === value.kind) return true;
      return importer.fail(`attribute "${name}" is of kind ${value.kind}, not ${spec.kind}`);
    }
    const inert = INERT[name];
    if (inert?.includes(value.value as number | string) === true) return false;
    return importer.fail(
      `attribute "${name}" of ${node.op} is not supported`,
      "Export the model with another operator set, or without this setting.",
    );
  });
  return Object.fromEntries(kept);
}

/** Settings that our definitions do not have, with the values at which they have no effect. */
const INERT: Readonly<Record<string, readonly (number | string)[]>> = {
  storage_order: [0],
  ceil_mode: [0],
  allowzero: [0],
  saturate: [1],
  round_mode: ["up"],
  auto_pad: ["NOTSET"],
  consumed_inputs: [],
  overlap: [],
  stash_type: [1],
  nearest_mode: ["round_prefer_floor"],
  exclude_outside: [0],
  antialias: [0],
  keep_aspect_ratio_policy: ["stretch"],
  extrapolation_value: [0],
  cubic_coeff_a: [-0.75],
  seed: [0],
};
