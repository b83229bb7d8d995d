/** What a rank of a pipeline has of the model, in numbers: the stages that the timetable gives it. */
import type { Graph } from "../graph/index.ts";
import { flopsOf, workOf } from "../ops/index.ts";
import {
  bytesOf,
  type ComputeTask,
  peakOfIntermediates,
  planArena,
  type StepFacts,
  type StepGraph,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import type { ModelPart } from "./divided-part.ts";

/** @param own the pieces of the stages of the rank, of all `pieces` of the pass */
export function partOfRank(
  step: StepGraph,
  whole: StepFacts,
  own: readonly ComputeTask[],
  pieces: readonly ComputeTask[],
): Omit<ModelPart, "exchanged" | "termsRead"> {
  const summed = summedBy(step, own);
  // Parameters lie with the rank that makes their gradients.
  const held = new Set(
    summed
      .filter((name) => valueOf(step, name).role.includes("gradient"))
      .map((name) => valueName("parameter", valueOf(step, name).of))
      .filter((name) => step.values.has(name)),
  );
  const read = new Set(
    own
      .flatMap(({ inputs }) => inputs)
      .filter((name) => valueOf(step, name).role === "parameter" && !held.has(name)),
  );
  const parameters = bytesOf(step, [...held]);
  const share = parameters / Math.max(1, whole.parameters);
  const graphs = own.map(({ graph }) => step.graphs.get(graph) as Graph);
  const stages = [...new Set(own.map(({ stage }) => stage?.stage as number))];
  const pass = {
    between: Math.max(0, ...stages.map((stage) => keptBy(step, pieces, stage))),
    within: Math.max(0, ...graphs.map(peakOfIntermediates)),
  };
  const facts: StepFacts = {
    ...whole,
    parameters,
    gradients: bytesOf(step, summed),
    slots: whole.slots * share,
    wholeSlots: whole.wholeSlots * share,
    scratch: whole.scratch * share,
    largestGradient: Math.min(whole.largestGradient, parameters),
    flops: graphs.reduce((sum, graph) => sum + flopsOf(graph), 0),
    work: graphs.flatMap(workOf),
    pass,
    inPieces: () => pass,
  };
  const last = Math.max(...pieces.map(({ stage }) => stage?.stage ?? 0));
  const ends = stages.filter((stage) => stage < last).flatMap((stage) => endOf(step, own, stage));
  return { facts, pass, brought: bytesOf(step, [...read, ...ends]) };
}

/**
 * The last matrix of a stage. The tile in which the next stage begins lies with one rank, so the
 * matrix in it is brought to the other.
 */
function endOf(step: StepGraph, own: readonly ComputeTask[], at: number): string[] {
  const pieces = own.filter(({ stage }) => stage?.stage === at);
  const read = new Set(pieces.flatMap(({ inputs }) => inputs));
  const isMatrix = ([name, { role, type }]: readonly [string, StepValue]) =>
    role === "parameter" && type.shape.length > 1 && read.has(name);
  return [...step.values]
    .filter(isMatrix)
    .slice(-1)
    .map(([name]) => name);
}

/** What some pieces make that is summed over micro-batches: gradients, and terms of the loss. */
export function summedBy(step: StepGraph, own: readonly ComputeTask[]): string[] {
  const isSum = (name: string) => /gradient|term/.test(valueOf(step, name).role);
  return own.flatMap(({ outputs }) => outputs.filter(isSum));
}

/** The bytes that a stage keeps of a micro-batch until the end of its backward part. */
export function keptBy(step: StepGraph, pieces: readonly ComputeTask[], stage: number): number {
  const own = pieces.filter((piece) => piece.stage?.stage === stage);
  const last = own.at(-1)?.stage?.direction;
  const before = own.filter((piece) => piece.stage?.direction !== last);
  const kept = new Set(summedBy(step, before));
  const others = new Set(
    pieces.filter((piece) => !own.includes(piece)).flatMap(({ inputs }) => inputs),
  );
  const made = own.flatMap(({ outputs }) => outputs);
  const end = { inputs: made.filter((name) => others.has(name) || kept.has(name)), outputs: [] };
  const arena = planArena([...own, end], (name) => {
    const { role, type } = valueOf(step, name);
    return role === "activation" || kept.has(name) ? byteLength(type) : undefined;
  });
  return arena.byteLength;
}
