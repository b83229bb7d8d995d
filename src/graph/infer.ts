/** Runs an operator's shape inference; its errors name the layer and the operator. */
import { LockstepError } from "../errors.ts";
import {
  formatShape,
  formatType,
  type Tensor,
  type TensorType,
  toNumbers,
} from "../tensor/index.ts";
import { readAttributes } from "./attributes.ts";
import { type Attributes, type Graph, type Node, typeOf } from "./graph.ts";
import type { InferContext, OperatorSignature } from "./signature.ts";

export interface InferRequest {
  readonly definition: OperatorSignature;
  /** The path of the layer or node, for messages: `blocks.3.attention`. */
  readonly where: string;
  readonly inputs: readonly (TensorType | undefined)[];
  readonly constants: readonly (Tensor | undefined)[];
  readonly attributes: Attributes;
  readonly outputCount: number;
}

export function inferTypes(request: InferRequest): readonly TensorType[] {
  const { definition, inputs, outputCount } = request;
  const context = inferContext(request);
  checkCount("inputs", inputs.length, definition.inputs, context);
  checkCount("outputs", outputCount, definition.outputs, context);
  const types = definition.infer(context).slice(0, outputCount);
  for (const { shape } of types) {
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      context.fail(`its result would have the shape ${formatShape(shape)}`);
    }
  }
  return types;
}

export function inferContext(request: InferRequest): InferContext {
  const { definition, inputs, constants, where } = request;
  const raise = (code: "SHAPE_MISMATCH" | "TYPE_MISMATCH", what: string, hint?: string): never => {
    const types = inputs.map((type) => (type === undefined ? "none" : formatType(type))).join(", ");
    throw new LockstepError(
      code,
      `${where}: ${definition.name}: ${what} (inputs: ${types}).`,
      hint === undefined ? {} : { hint },
    );
  };
  return {
    op: definition.name,
    inputs,
    outputCount: request.outputCount,
    attributes: readAttributes(definition, request.attributes, where),
    input(index) {
      const type = inputs[index];
      return type ?? raise("SHAPE_MISMATCH", `input ${index} is missing`);
    },
    constant: (index) => constants[index],
    constantNumbers(index) {
      const tensor = constants[index];
      return tensor === undefined
        ? raise("SHAPE_MISMATCH", `input ${index} must be a constant, for shapes are static`)
        : toNumbers(tensor);
    },
    fail: (what, hint) => raise("SHAPE_MISMATCH", what, hint),
    failType: (what, hint) => raise("TYPE_MISMATCH", what, hint),
  };
}

/** What is known of a node of a finished graph, whose types have been inferred. */
export function inferContextOf(
  graph: Graph,
  node: Node,
  definition: OperatorSignature,
): InferContext {
  return inferContext({
    definition,
    where: node.name,
    inputs: node.inputs.map((name) => (name === "" ? undefined : typeOf(graph, name))),
    constants: node.inputs.map((name) => graph.constants.get(name)),
    attributes: node.attributes,
    outputCount: node.outputs.length,
  });
}

function checkCount(
  what: string,
  count: number,
  [least, most]: readonly [number, number],
  context: InferContext,
): void {
  if (count >= least && count <= most) return;
  const range = least === most ? `${least}` : `${least} to ${most}`;
  context.fail(`takes ${range} ${what}, got ${count}`);
}
