/**
 * What the model asks of its data, read off its graph: which fields of the batch reach, as they are, an operator that takes
 * numbers of places or a loss that takes labels, and which values that allows. What is computed with on the way (an offset, a choice by
 * another value) is not followed.
 */
import type { FieldRange, ModelInput } from "../data/index.ts";
import { type Graph, inferContext, type Node, typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { operatorTable } from "../ops/index.ts";
import { evaluateNode, fromTensor, type ReferenceTensor } from "../reference/index.ts";
import { elementCount, type ValueRange } from "../tensor/index.ts";

/** The fields of a batch with what their values must be. */
export function modelInputs(model: Model): ModelInput[] {
  const { graph, batch } = model;
  return batch.map((name) => {
    const type = typeOf(graph, name);
    return { name, type, ranges: rangesOf(model, name, elementCount(type.shape.slice(1))) };
  });
}

/** A value that holds elements of the field; `places`: their numbers in it, -1 for others; all in order unless told. */
type Followed = ReadonlyMap<string, ReferenceTensor | undefined>;

/** A field of more elements is followed only where it stays whole. */
const MAX_FOLLOWED = 2 ** 20;

function rangesOf(model: Model, field: string, perSample: number): FieldRange[] {
  const { graph, expectations } = model;
  const followed = follow(graph, field);
  const found = new Map<string, { range: ValueRange; places: Set<number> | undefined }>();
  const add = (value: string, range: ValueRange) => {
    if (!followed.has(value)) return;
    const places = followed.get(value)?.data.filter((place) => place >= 0);
    const key = JSON.stringify(range);
    const known = found.get(key);
    if (places === undefined) found.set(key, { range, places: undefined });
    else if (known === undefined || known.places !== undefined) {
      const all = known?.places ?? new Set();
      for (const place of places) all.add(place % perSample);
      found.set(key, { range, places: all });
    }
  };
  for (const node of graph.nodes) {
    if (!node.inputs.some((input) => followed.has(input))) continue;
    for (const { input, range } of asksOf(graph, node)) add(node.inputs[input] ?? "", range);
  }
  for (const { value, range } of expectations) add(value, range);
  return [...found.values()].map(({ range, places }) =>
    places === undefined || places.size === perSample
      ? { range }
      : { range, places: [...places].sort((a, b) => a - b) },
  );
}

function asksOf(graph: Graph, node: Node) {
  const definition = operatorTable.find(node.op);
  if (definition?.asks === undefined) return [];
  const context = inferContext({
    definition,
    where: node.name,
    inputs: node.inputs.map((name) => graph.types.get(name)),
    constants: node.inputs.map((name) => graph.constants.get(name)),
    attributes: node.attributes,
    outputCount: node.outputs.length,
  });
  return definition.asks(context);
}

function follow(graph: Graph, field: string): Followed {
  const followed = new Map<string, ReferenceTensor | undefined>([[field, undefined]]);
  for (const node of graph.nodes) {
    const moves = operatorTable.find(node.op)?.moves;
    if (moves === undefined || !node.inputs.some((input) => followed.has(input))) continue;
    const [first = ""] = node.inputs;
    const [result = ""] = node.outputs;
    // A truth value is no longer the number that it came from.
    if (result !== "" && typeOf(graph, result).dtype === "bool") continue;
    if (moves === "all" && followed.has(first) && followed.get(first) === undefined) {
      followed.set(result, undefined);
    } else {
      const places = movedPlaces(graph, node, followed);
      for (const [index, output] of node.outputs.entries()) {
        const moved = places[index];
        if (output !== "" && moved?.data.some((place) => place >= 0)) followed.set(output, moved);
      }
    }
  }
  return followed;
}

/** The node run on the numbers of the elements in place of the elements; nothing if that depends on what is not constant. */
function movedPlaces(graph: Graph, node: Node, followed: Followed): readonly ReferenceTensor[] {
  const joins = operatorTable.find(node.op)?.inputs[1] === Number.POSITIVE_INFINITY;
  const inputs: (ReferenceTensor | undefined)[] = [];
  for (const name of node.inputs) {
    if (name === "") {
      inputs.push(undefined);
      continue;
    }
    const { shape } = typeOf(graph, name);
    const constant = graph.constants.get(name);
    if (elementCount(shape) > MAX_FOLLOWED) return [];
    if (followed.has(name)) {
      const known = followed.get(name);
      const data = known?.data ?? Float64Array.from({ length: elementCount(shape) }, (_, i) => i);
      inputs.push({ dtype: "float64", shape, data });
    } else if (joins) {
      // All inputs are moved: these hold nothing of the field.
      const data = new Float64Array(elementCount(shape)).fill(-1);
      inputs.push({ dtype: "float64", shape, data });
    } else if (constant !== undefined) inputs.push(fromTensor(constant));
    else return [];
  }
  const types = node.outputs.map((name) => ({
    dtype: "float64" as const,
    shape: name === "" ? [] : typeOf(graph, name).shape,
  }));
  return evaluateNode(node, inputs, types);
}
