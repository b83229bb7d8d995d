/** How a node of a graph can be divided among the ranks of an axis, and what a rank computes then. */
import { assert } from "../errors.ts";
import {
  type AttributeInputs,
  type Division,
  type DivisionContext,
  type Graph,
  type GraphBuilder,
  inferContextOf,
  type Node,
  type OperatorDefinition,
  typeOf,
  type Value,
} from "../graph/index.ts";
import { isSamePlacement, shapeOnAxis } from "../mesh/index.ts";
import { isFloat, sameShape, type TensorType } from "../tensor/index.ts";
import { linearDivisions } from "./divisions.ts";
import { areOwnRows } from "./own-rows.ts";
import { operatorTable } from "./table.ts";

/** The axis along which nodes are divided. */
export interface DividedOver {
  readonly axis: string;
  readonly ranks: number;
  readonly proportions: DivisionContext["proportions"];
}

/**
 * All ways to divide a node. The first one divides nothing: every rank computes the whole.
 * @param graph of whole tensors
 */
export function divisionsOf(graph: Graph, node: Node, over: DividedOver): readonly Division[] {
  const definition = definitionOf(node);
  const context = contextOf(graph, node, over);
  const whole: Division = {
    inputs: node.inputs.map(() => undefined),
    outputs: node.outputs.map(() => undefined),
  };
  const { divisions, batch } = definition;
  const own = typeof divisions === "function" ? divisions(context) : [];
  const linear =
    batch?.linear !== undefined && areFloats(context) ? linearDivisions(context, batch.linear) : [];
  return [whole, ...[...own, ...linear].filter((division) => sumsNoBooleans(context, division))];
}

/** Booleans have no sum, so that none of them can be a term of one. */
function sumsNoBooleans(context: DivisionContext, { inputs, outputs }: Division): boolean {
  const isFine = (types: readonly (TensorType | undefined)[], placed: Division["inputs"]) =>
    placed.every((on, index) => typeof on !== "string" || types[index]?.dtype !== "bool");
  return isFine(context.inputs, inputs) && isFine(context.outputs, outputs);
}

/** Rounding is not linear, and integers are not summed. */
function areFloats({ inputs, outputs }: DivisionContext): boolean {
  return [inputs[0], ...outputs].every((type) => type === undefined || isFloat(type.dtype));
}

/** Why a node is never divided; undefined if its operator has ways to do that. */
export function reasonOfNever(node: Node): string | undefined {
  const { divisions } = definitionOf(node);
  return typeof divisions === "object" ? divisions.never : undefined;
}

export interface LocalNode {
  readonly division: Division;
  /** What this rank holds of the inputs, placed as the division asks. */
  readonly inputs: readonly (Value | undefined)[];
  readonly over: DividedOver;
}

/** Adds what a rank computes of a node, and returns what it holds of each output. */
export function addLocalNode(
  builder: GraphBuilder,
  graph: Graph,
  node: Node,
  { division, inputs, over }: LocalNode,
): readonly Value[] {
  const definition = definitionOf(node);
  const { attributes } = inferContextOf(graph, node, definition);
  const outputs = node.outputs.map((name, index): TensorType => {
    if (name === "") return { dtype: "float32", shape: [] };
    const { dtype, shape } = typeOf(graph, name);
    return { dtype, shape: shapeOnAxis(shape, division.outputs[index], over.ranks) };
  });
  const same = () => builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
  const made =
    division.local?.({
      builder,
      attributes,
      inputs,
      input(index) {
        const value = inputs[index];
        assert(value !== undefined, `${node.name}: input ${index} is missing`);
        return value;
      },
      outputs,
      ranks: over.ranks,
      allReduce: (value, kind) =>
        builder.one("lockstep::AllReduce", [value], { axis: over.axis, ranks: over.ranks, kind }),
      shift: (value) =>
        builder.one("lockstep::Shift", [value], { axis: over.axis, ranks: over.ranks }),
      place: () => builder.one("lockstep::AxisPlace", [], { axis: over.axis, ranks: over.ranks }),
      again: (others, changed = {}) =>
        builder.emit(node.op, others, { ...plain(node), ...changed }, { outputs: outputs.length }),
    }) ?? same();
  for (const [index, { shape }] of outputs.entries()) {
    const own = made[index];
    if (node.outputs[index] === "" || own === undefined) continue;
    assert(
      sameShape(own.shape, shape),
      `${node.name} (${node.op}): a rank makes [${own.shape}] of output ${index}, which should be [${shape}]`,
    );
  }
  return made;
}

/** The attributes of a node as a builder takes them. */
function plain({ attributes }: Node): AttributeInputs {
  return Object.fromEntries(Object.entries(attributes).map(([name, { value }]) => [name, value]));
}

/** The division with these placements, if a node has it. */
export function findDivision(
  divisions: readonly Division[],
  inputs: Division["inputs"],
): Division | undefined {
  return divisions.find((own) =>
    own.inputs.every((placement, index) => isSamePlacement(placement, inputs[index])),
  );
}

function contextOf(graph: Graph, node: Node, { ranks, proportions }: DividedOver): DivisionContext {
  const definition = definitionOf(node);
  const context = inferContextOf(graph, node, definition);
  const outputs = definition.infer(context).slice(0, node.outputs.length);
  const ownRows = (index: number) => areOwnRows(graph, node.inputs[index] ?? "");
  return { ...context, outputs, ranks, proportions, ownRows };
}

function definitionOf({ op, name }: Node): OperatorDefinition {
  const definition = operatorTable.find(op);
  assert(definition !== undefined, `${name}: the operator "${op}" has a definition`);
  return definition;
}
