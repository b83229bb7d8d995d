/**
 * The program of a training step: what is computed before the decision to commit, and what the commit writes.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */

import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import { byteLength, isFloat, type TensorType } from "../tensor/index.ts";
import {
  type GradientGraph,
  gradientGraph,
  lossType,
  type ModelPlaces,
  modelInputs,
  rowsRef,
  type SumTree,
  scaledRun,
  sumStage,
  sumTree,
  withOutputs,
} from "./gradient.ts";
import { type Layout, planLayout } from "./layout.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import { type ParameterPlan, planParameters } from "./plan-parameters.ts";
import { type Program, ProgramBuilder, type Run, type Stage, type TensorRef } from "./program.ts";
import { planUpdate, type UpdatePlan } from "./update.ts";

export interface TrainingOptions {
  /** Built for one micro-batch, to train. */
  readonly model: Model;
  /** The same model, built for evaluation. */
  readonly evaluation?: Model | undefined;
  readonly optimizer: Optimizer;
  readonly microBatches?: number | undefined;
  /** Micro-batches that may run at once, each on one thread. It changes no bits. Default: 1. */
  readonly lanes?: number | undefined;
  readonly clip?: number | undefined;
}

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /** The runs of `compute` that make gradients, one for each micro-batch. */
  readonly gradients: readonly Run[];
  readonly evaluate: Stage | undefined;
  readonly states: ReadonlyMap<string, TensorRef>;
}

export interface TrainingPlan {
  readonly program: Program;
  readonly sides: readonly [Side, Side];
  readonly gradient: GradientGraph;
  readonly norm: NormPlan;
  readonly update: UpdatePlan;
  /** Fields of the whole batch, by name; the key of each sample is among them if the model has one. */
  readonly batch: ReadonlyMap<string, TensorRef>;
  readonly evaluationBatch: ReadonlyMap<string, TensorRef>;
  readonly evaluationLoss: TensorRef | undefined;
  readonly parameters: ReadonlyMap<string, TensorRef>;
}

export function planTraining(options: TrainingOptions): TrainingPlan {
  const { model, evaluation, microBatches = 1 } = options;
  const program = new ProgramBuilder();
  const summed = microBatches === 1 ? [] : model.states.filter(({ type }) => isFloat(type.dtype));
  const parameters = planParameters(model.parameters, options.optimizer, summed);
  const tree = sumTree(microBatches, lanesOf(options));
  const states = planLayout(
    model.states.map(({ name, type }) => ({ name, type, group: "states" })),
    64,
  );
  allocate(program, options, parameters, states, tree);
  const losses = {
    buffer: "losses",
    byteOffset: 0,
    type: { dtype: lossType(model).dtype, shape: [microBatches] },
  };
  const norm = planNorm(program, parameters, { microBatches, clip: options.clip, losses });
  const update = planUpdate(program, parameters);
  const gradient = gradientGraph(model);
  // A micro-batch stays on one thread, so that its bits do not depend on how many there are.
  program.graph("gradient", microBatches === 1 ? "all" : 1, () => gradient.graph);
  const sums = new Map<string, Stage>();
  const side = (from: number): Side => {
    const context = { sums, program, options, parameters, states, tree, gradient, from };
    const gradients = Array.from({ length: microBatches }, (_, index) =>
      gradientRun(context, index),
    );
    const { compute, commit } = planSide(context, gradients);
    return {
      gradients,
      compute: [...compute, ...norm.stages],
      commit: [...commit, ...update.stages],
      evaluate: evaluation && evaluationStage(program, evaluation, placesOf(context, "evaluation")),
      states: refsOf(states, `states.${from}`),
    };
  };
  const sides: [Side, Side] = [side(0), side(1)];
  return {
    program,
    sides,
    gradient,
    norm,
    update,
    batch: batchRefs(model, "batch", microBatches),
    evaluationBatch: evaluation ? batchRefs(evaluation, "evaluation", 1) : new Map(),
    evaluationLoss: evaluation && rowsRef("evaluation loss", lossType(evaluation), 0),
    parameters: refsOf(parameters.parameters, "parameters"),
  };
}

function lanesOf({ lanes = 1, microBatches = 1 }: TrainingOptions): number {
  return Math.min(lanes, microBatches);
}

interface SideContext {
  /** Additions of one buffer into another: few pairs, used again and again. */
  readonly sums: Map<string, Stage>;
  readonly program: ProgramBuilder;
  readonly options: TrainingOptions;
  readonly parameters: ParameterPlan;
  readonly states: Layout;
  readonly tree: SumTree;
  readonly gradient: GradientGraph;
  /** Which set of states is read; the other is written. */
  readonly from: number;
}

function allocate(
  program: ProgramBuilder,
  { model, evaluation, microBatches = 1 }: TrainingOptions,
  { parameters, gradients }: ParameterPlan,
  states: Layout,
  tree: SumTree,
): void {
  program.buffer("parameters", parameters.byteLength);
  for (let index = 0; index < tree.buffers; index++) {
    program.buffer(gradientBuffer(index), gradients.byteLength);
  }
  for (const name of ["states.0", "states.1"]) program.buffer(name, states.byteLength);
  if (microBatches > 1) program.buffer("states.unused", states.byteLength);
  program.buffer("losses", microBatches * byteLength(lossType(model)));
  for (const [name, { type }] of batchRefs(model, "batch", microBatches)) {
    program.buffer(`batch.${name}`, byteLength(type));
  }
  if (evaluation === undefined) return;
  program.buffer("evaluation loss", byteLength(lossType(evaluation)));
  for (const [name, { type }] of batchRefs(evaluation, "evaluation", 1)) {
    program.buffer(`evaluation.${name}`, byteLength(type));
  }
}

function gradientBuffer(index: number): string {
  return index === 0 ? "gradients" : `gradients.${index}`;
}

/** Gradients of every micro-batch, summed as soon as the tree allows; then states, as means over micro-batches. */
function planSide(
  context: SideContext,
  gradients: readonly Run[],
): { compute: Stage[]; commit: Stage[] } {
  const { program, sums, options, parameters, tree, from } = context;
  const { microBatches = 1, model } = options;
  const compute: Stage[] = [];
  const lanes = lanesOf(options);
  for (let start = 0; start < microBatches; start += lanes) {
    const runs = gradients.slice(start, start + lanes);
    const last = start + runs.length - 1;
    // Without parallel micro-batches, one run has all threads.
    const mode = lanes === 1 ? "ordered" : "parallel";
    compute.push({ name: `gradients ${start} to ${last}`, runs, mode });
    for (const sum of tree.sums.filter(({ after }) => after === last)) {
      const buffers = { from: gradientBuffer(sum.from), into: gradientBuffer(sum.into) };
      const key = `${buffers.from} ${buffers.into}`;
      const stage = sums.get(key) ?? sumStage(program, parameters.gradients, buffers);
      sums.set(key, stage);
      compute.push(stage);
    }
  }
  if (microBatches === 1 || model.states.length === 0) return { compute, commit: [] };
  const written = refsOf(context.states, `states.${1 - from}`);
  const runs: Run[] = [];
  for (const [name, to] of written) {
    const sum = refsOf(parameters.gradients, gradientBuffer(0)).get(name);
    if (sum !== undefined) runs.push(scaledRun(program, sum, to, 1 / microBatches));
  }
  return { compute, commit: [{ name: "states", runs, mode: "parallel" }] };
}

function gradientRun(context: SideContext, index: number): Run {
  const { options, parameters, tree, gradient, states, from } = context;
  const { model, microBatches = 1 } = options;
  const buffer = gradientBuffer(tree.leaves[index] as number);
  const own = refsOf(parameters.gradients, buffer);
  const written = refsOf(states, `states.${1 - from}`);
  const unused = refsOf(states, "states.unused");
  const outputs: Record<string, TensorRef> = {
    [model.loss]: rowsRef("losses", lossType(model), index),
  };
  for (const { name, next } of model.states) {
    // Floats are averaged over micro-batches; of counters, that of the first micro-batch holds.
    const place = microBatches === 1 ? written.get(name) : own.get(name);
    outputs[next] = place ?? ((index === 0 ? written : unused).get(name) as TensorRef);
  }
  for (const { name } of model.parameters) {
    outputs[gradient.gradients.get(name) as string] = own.get(name) as TensorRef;
  }
  const inputs = modelInputs(model, placesOf(context, "batch"), index);
  return { graph: "gradient", inputs, outputs };
}

function evaluationStage(program: ProgramBuilder, model: Model, places: ModelPlaces): Stage {
  const graph = program.graph("evaluation", "all", () => withOutputs(model.graph, [model.loss]));
  const outputs = { [model.loss]: rowsRef("evaluation loss", lossType(model), 0) };
  const run = { graph, inputs: modelInputs(model, places, 0), outputs };
  return { name: "evaluation", runs: [run], mode: "ordered" };
}

function placesOf(context: SideContext, kind: "batch" | "evaluation"): ModelPlaces {
  const { options, parameters, states, from } = context;
  const model = kind === "batch" ? options.model : (options.evaluation as Model);
  const parameterRefs = refsOf(parameters.parameters, "parameters");
  const stateRefs = refsOf(states, `states.${from}`);
  return {
    batch: (name, index) => rowsRef(`${kind}.${name}`, typeOf(model.graph, name), index),
    parameter: (name) => parameterRefs.get(name) as TensorRef,
    state: (name) => stateRefs.get(name) as TensorRef,
  };
}

/** Whole fields: all micro-batches one after the other. */
function batchRefs(model: Model, kind: string, microBatches: number): Map<string, TensorRef> {
  const names = [...model.batch, ...(model.randomKey === undefined ? [] : [model.randomKey])];
  return new Map(
    names.map((name) => {
      const { dtype, shape } = typeOf(model.graph, name);
      const [rows = 1, ...rest] = shape;
      const type: TensorType = { dtype, shape: [rows * microBatches, ...rest] };
      return [name, { buffer: `${kind}.${name}`, byteOffset: 0, type }];
    }),
  );
}

/** Every tensor of a layout, in this buffer. */
export function refsOf(layout: Layout, buffer: string): Map<string, TensorRef> {
  return new Map(
    [...layout.entries.values()].map(({ name, type, byteOffset }) => [
      name,
      { buffer, byteOffset, type },
    ]),
  );
}
