/** The forward and backward pass of one micro-batch, and the sum of micro-batches in one fixed tree. */
import { differentiate } from "../autodiff/index.ts";
import { assert } from "../errors.ts";
import { add, mul } from "../functional/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { extendGraph, newBuilder } from "../ops/index.ts";
import { bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import type { BatchSums } from "./batch-sums.ts";
import type { Layout } from "./layout.ts";
import { buildNamed } from "./named.ts";
import { elementsOf, type Piece, wholePieces } from "./pieces.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import { blockRef, blocksBetween, sweepMode } from "./sweep.ts";

/** Where a model's inputs lie. */
export interface ModelPlaces {
  /** Fields of the batch and the random key, for micro-batch `index`. */
  batch(name: string, index: number): TensorRef;
  parameter(name: string): TensorRef;
  state(name: string): TensorRef;
}

export interface GradientGraph {
  readonly graph: Graph;
  /** Output names by parameter name. */
  readonly gradients: ReadonlyMap<string, string>;
}

/** The terms of the loss, the next states and all gradients; what else the model gives is left out. */
export function gradientGraph(
  model: Model,
  { graph, terms }: Pick<BatchSums, "graph" | "terms">,
): GradientGraph {
  const names = model.parameters.map(({ name }) => name);
  const objective = terms.find(({ trained }) => trained) ?? terms[0];
  assert(objective !== undefined, "a loss has a term");
  return differentiate({ ...graph, name: `${model.name} gradient` }, objective.output, names);
}

/** The same graph with only these outputs and the nodes that they need. */
export function withOutputs(graph: Graph, outputs: readonly string[]): Graph {
  const builder = extendGraph(graph);
  return builder.build(outputs.map((name) => builder.value(name)));
}

export function modelInputs(
  model: Model,
  places: ModelPlaces,
  index: number,
): Record<string, TensorRef> {
  const fields = [...model.batch, ...(model.randomKey === undefined ? [] : [model.randomKey])];
  return Object.fromEntries([
    ...fields.map((name) => [name, places.batch(name, index)]),
    ...model.parameters.map(({ name }) => [name, places.parameter(name)]),
    ...model.states.map(({ name }) => [name, places.state(name)]),
  ]);
}

/** A part of a tensor along its leading dim. */
export function rowsRef(buffer: string, type: TensorType, index: number): TensorRef {
  const bytes = elementCount(type.shape) * bytesPerElement(type.dtype);
  return { buffer, byteOffset: index * bytes, type };
}

/** `into += from` over these pieces, block by block. */
export function sumStage(
  program: ProgramBuilder,
  layout: Layout,
  { from, into }: { readonly from: string; readonly into: string },
  pieces: readonly Piece[] = wholePieces(layout),
): RunStage {
  const runs = pieces.flatMap(({ group, start, end }) =>
    blocksBetween(start, end).map((block): Run => {
      const total = blockRef(into, layout, group, block);
      const graph = program.graph(`sum.${group.dtype}.${block.tiles}`, 1, () => {
        const builder = newBuilder("sum");
        const sum = add(builder.input("total", total.type), builder.input("part", total.type));
        return buildNamed(builder, new Map([["total/next", sum]]));
      });
      const part = blockRef(from, layout, group, block);
      return { graph, inputs: { total, part }, outputs: { "total/next": total } };
    }),
  );
  const elements = pieces.reduce((sum, piece) => sum + elementsOf(layout, piece), 0);
  return { name: `${into} += ${from}`, runs, mode: sweepMode(elements, 0.25) };
}

/** A tensor times a number, into another place. */
export function scaledRun(
  program: ProgramBuilder,
  from: TensorRef,
  to: TensorRef,
  factor: number,
): Run {
  const { dtype, shape } = from.type;
  const graph = program.graph(`scale.${dtype}.${shape.join("x")}`, 1, () => {
    const builder = newBuilder("scale");
    const scaled = mul(builder.input("from", from.type), factor);
    return buildNamed(builder, new Map([["to", scaled]]));
  });
  return { graph, inputs: { from }, outputs: { to } };
}

export function lossType(model: Model): TensorType {
  return typeOf(model.graph, model.loss);
}
