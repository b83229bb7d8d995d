/**
 * Finds nodes that work within the last dims of their tensors, as their operators say, so that the
 * dims before them may be grouped in any way.
 */
import type { AttributeValue, Graph, Node } from "../../graph/index.ts";
import { operatorTable } from "../../ops/index.ts";
import { elementCount, type Shape, sameShape, toNumbers } from "../../tensor/index.ts";

/**
 * A node that computes the same elements however the dims before its last `tail` ones are grouped.
 */
export interface Groupable {
  readonly tail: number;
  /** Which inputs have these leading dims; the other inputs are the same for all of them. */
  readonly grouped: readonly boolean[];
  /** The attributes of the regrouped node: axes count from the end. */
  readonly attributes: Node["attributes"];
}

/** Undefined for a node whose dims must stay as they are. */
export function groupable(graph: Graph, node: Node): Groupable | undefined {
  const shapes = node.inputs.map((name) => graph.types.get(name)?.shape);
  const out = graph.types.get(node.outputs[0] ?? "")?.shape;
  if (out === undefined || shapes.some((shape) => shape === undefined)) return undefined;
  const given = shapes as readonly Shape[];
  switch (operatorTable.find(node.op)?.within) {
    case "elements":
      return elementwise(node, given, out);
    case "axis":
      return alongAxis(node, given, out);
    case "axes":
      return overAxes(graph, node, given);
    case "matrices":
      return product(node, given);
    case undefined:
      return undefined;
  }
}

function elementwise(node: Node, shapes: readonly Shape[], out: Shape): Groupable | undefined {
  for (let tail = 0; tail < out.length; tail++) {
    const lead = out.slice(0, out.length - tail);
    const grouped = shapes.map(
      (shape) => shape.length === out.length && sameShape(shape.slice(0, lead.length), lead),
    );
    const fits = shapes.every((shape, index) => grouped[index] || stripped(shape).length <= tail);
    if (fits && grouped.includes(true) && elementCount(lead) > 1) {
      return { tail, grouped, attributes: node.attributes };
    }
  }
  return undefined;
}

/** A node that works along the last dim; its other inputs (a scale, a bias) belong to that dim. */
function alongAxis(node: Node, shapes: readonly Shape[], out: Shape): Groupable | undefined {
  const axis = node.attributes["axis"]?.value ?? -1;
  if (axis !== -1 && axis !== out.length - 1) return undefined;
  if (shapes.slice(1).some((shape) => shape.length > 1)) return undefined;
  return {
    tail: 1,
    grouped: shapes.map((_, index) => index === 0),
    attributes: { ...node.attributes, axis: { kind: "int", value: -1 } },
  };
}

/** A product of matrices of equal batches, or of rows and one matrix. */
function product(node: Node, [a = [], b = []]: readonly Shape[]): Groupable | undefined {
  const { attributes } = node;
  if (isOn(attributes["transBatchA"]) || isOn(attributes["transBatchB"])) return undefined;
  if (a.length < 2 || b.length < 2) return undefined;
  if (b.length === 2) {
    if (isOn(attributes["transA"])) return undefined;
    return { tail: 1, grouped: [true, false], attributes };
  }
  if (!sameShape(a.slice(0, -2), b.slice(0, -2))) return undefined;
  return { tail: 2, grouped: [true, true], attributes };
}

/** A reduction over dims counted from the end, which are kept with size 1. */
function overAxes(graph: Graph, node: Node, shapes: readonly Shape[]): Groupable | undefined {
  const given = graph.constants.get(node.inputs[1] ?? "");
  const axes = given === undefined ? [] : toNumbers(given);
  if (axes.length === 0 || axes.some((axis) => axis >= 0)) return undefined;
  if ((node.attributes["keepdims"]?.value ?? 1) !== 1) return undefined;
  const grouped = shapes.map((_, index) => index === 0);
  return { tail: -Math.min(...axes), grouped, attributes: node.attributes };
}

/** A shape without its leading dims of size 1, which broadcasting adds by itself. */
export function stripped(shape: Shape): Shape {
  const first = shape.findIndex((size) => size !== 1);
  return first < 0 ? [] : shape.slice(first);
}

function isOn(attribute: AttributeValue | undefined): boolean {
  return attribute !== undefined && attribute.value !== 0;
}
