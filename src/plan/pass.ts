/**
 * The forward and backward pass of a micro-batch in a step, whole or in pieces, and the memory of
 * its activations.
 */
import type { Graph } from "../graph/index.ts";
import { byteLength } from "../tensor/index.ts";
import { type Arena, planArena } from "./arena.ts";
import { GRADIENT } from "./build.ts";
import { peakOfIntermediates } from "./liveness.ts";
import {
  type ComputeTask,
  type ExchangeTask,
  MICRO_BATCH,
  type StepGraph,
  type StepTask,
  valueOf,
} from "./step-graph.ts";

/**
 * Whether a task is the forward and backward pass of a micro-batch, or a piece of it. What is made
 * of gradients once in a step is none, whatever its name is.
 */
export function isPiece(task: StepTask): task is ComputeTask {
  return task.kind === "compute" && task.each === MICRO_BATCH && task.graph.startsWith(GRADIENT);
}

/** A piece of a pass, or what is exchanged between two of them. */
export type PassTask = ComputeTask | ExchangeTask;

/** The pieces of a pass, and the exchanges between them, in order. */
export function passTasks({ tasks }: StepGraph): PassTask[] {
  return tasks.filter((task): task is PassTask => isPiece(task) || task.kind === "exchange");
}

/** A piece of a pass, and what is exchanged before the next one. */
export interface PassPart {
  readonly piece: ComputeTask;
  readonly exchanges: readonly ExchangeTask[];
}

/** What a piece and the exchanges behind it make. */
export function madeBy({ piece, exchanges }: PassPart): string[] {
  return [...piece.outputs, ...exchanges.flatMap(({ outputs }) => outputs)];
}

export function passParts(step: StepGraph): PassPart[] {
  const parts: { piece: ComputeTask; exchanges: ExchangeTask[] }[] = [];
  for (const task of passTasks(step)) {
    if (task.kind === "compute") parts.push({ piece: task, exchanges: [] });
    else parts.at(-1)?.exchanges.push(task);
  }
  return parts;
}

/** The values that ranks exchange. */
export function exchangedIn(tasks: readonly PassTask[]): ReadonlySet<string> {
  return new Set(tasks.flatMap((task) => (task.kind === "exchange" ? task.inputs : [])));
}

/**
 * Plans places for the values that the pieces of a pass pass on. What is exchanged has places of its
 * own.
 */
export function arenaOf(step: StepGraph, pieces: readonly PassTask[]): Arena {
  const exchanged = exchangedIn(pieces);
  return planArena(pieces, (name) => {
    const { role, type } = valueOf(step, name);
    return role === "activation" && !exchanged.has(name) ? byteLength(type) : undefined;
  });
}

/**
 * Whether pieces of the pass compute nodes of other pieces again. Such a pass is never run whole,
 * because that would take the memory that the pieces save.
 */
export function isRepeating(step: StepGraph): boolean {
  const nodesOf = (name: string) => step.graphs.get(name)?.nodes.length ?? 0;
  const inPieces = step.tasks.filter(isPiece).reduce((sum, { graph }) => sum + nodesOf(graph), 0);
  return inPieces > nodesOf(GRADIENT);
}

/** The bytes of the activations of one micro-batch. */
export interface PassMemory {
  /** The length of the arena that pieces pass values on in. */
  readonly between: number;
  /** The most that is live at once inside one piece, if its nodes run in the order of its graph. */
  readonly within: number;
}

export function passMemory(step: StepGraph): PassMemory {
  const pieces = step.tasks.filter(isPiece);
  const inside = pieces.map(({ graph }) => peakOfIntermediates(step.graphs.get(graph) as Graph));
  return { between: arenaOf(step, passTasks(step)).byteLength, within: Math.max(0, ...inside) };
}
