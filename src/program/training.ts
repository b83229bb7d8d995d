/**
 * The program of a training step: what is computed before the decision to commit, and what the commit writes.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */

import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import { byteLength, isFloat, type TensorType } from "../tensor/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import {
  type GradientGraph,
  gradientGraph,
  lossType,
  type ModelPlaces,
  modelInputs,
  rowsRef,
  scaledRun,
  sumStage,
  withOutputs,
} from "./gradient.ts";
import { type Layout, planLayout } from "./layout.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import { type ParameterPlan, planParameters } from "./plan-parameters.ts";
import { type Program, ProgramBuilder, type Run, type Stage, type TensorRef } from "./program.ts";
import { planReduce } from "./reduce.ts";
import { batchRefs, refsOf } from "./refs.ts";
import { planShares, type Range, type Shares } from "./shares.ts";
import { planUpdate, type UpdatePlan } from "./update.ts";

export interface TrainingOptions {
  /** Built for one micro-batch, to train. */
  readonly model: Model;
  /** The same model, built for evaluation. */
  readonly evaluation?: Model | undefined;
  readonly optimizer: Optimizer;
  /** Of the whole step, on all ranks together. Default: 1. */
  readonly microBatches?: number | undefined;
  /** This rank's part of the step; all of it unless told. */
  readonly share?: TrainingShare | undefined;
  /** Micro-batches that may run at once, each on one thread. It changes no bits. Default: 1. */
  readonly lanes?: number | undefined;
  readonly clip?: number | undefined;
}

export interface TrainingShare {
  readonly rank: number;
  /** The micro-batches of each rank. */
  readonly ranges: readonly Range[];
  /** Peers' memory can be read in place. */
  readonly inPlace: boolean;
}

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /** The runs of `compute` that make gradients, one for each micro-batch of this rank. */
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
  /** The micro-batches that this rank computes. */
  readonly range: Range;
  /** Written before a step by each rank; after it, how many asked for a stop. Undefined for one micro-batch. */
  readonly stop: TensorRef | undefined;
  /** Seconds a micro-batch, by rank: each writes its own before a step; after it, all have all. Undefined for one rank. */
  readonly paces: TensorRef | undefined;
  /** Fields of this rank's part of the batch, by name; the key of each sample is among them if the model has one. */
  readonly batch: ReadonlyMap<string, TensorRef>;
  readonly evaluationBatch: ReadonlyMap<string, TensorRef>;
  readonly evaluationLoss: TensorRef | undefined;
  readonly parameters: ReadonlyMap<string, TensorRef>;
}

export function planTraining(options: TrainingOptions): TrainingPlan {
  const { model, evaluation, microBatches = 1 } = options;
  const share = options.share ?? wholeStep(microBatches);
  const program = new ProgramBuilder();
  const parameters = planParameters(model.parameters, options.optimizer, summedBeside(options));
  const shares = planShares(share.ranges);
  const own = shares.contributions.filter(({ rank }) => rank === share.rank);
  const range = share.ranges[share.rank] as Range;
  const sums = planAccumulation(own, options.lanes ?? 1);
  const states = planLayout(
    model.states.map(({ name, type }) => ({ name, type, group: "states" })),
    64,
  );
  const context = { program, options, share, shares, range, parameters, states, sums };
  allocate(context);
  const loss = lossRef(context, 0);
  const losses = { ...loss, type: { dtype: loss.type.dtype, shape: [1] } };
  const norm = planNorm(program, parameters, { microBatches, clip: options.clip, losses });
  const update = planUpdate(program, parameters, {
    rank: share.rank,
    ranks: share.ranges.length,
  });
  const gradient = gradientGraph(model);
  // A micro-batch stays on one thread, so that its bits do not depend on how many there are.
  program.graph("gradient", microBatches === 1 ? "all" : 1, () => gradient.graph);
  const additions = new Map<string, Stage>();
  const reduce = planRanks(context);
  const side = (from: number): Side => {
    const sided = { ...context, additions, gradient, from };
    const gradients = Array.from({ length: range.count }, (_, index) => gradientRun(sided, index));
    const compute = planSums(sided, gradients);
    return {
      gradients,
      compute: [...compute, ...reduce, ...norm.stages],
      commit: [...averageStates(sided), ...update.stages],
      evaluate: evaluation && evaluationStage(program, evaluation, placesOf(sided, "evaluation")),
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
    range,
    stop: refsOf(parameters.gradients, gradientBuffer(0)).get(STOP),
    paces: refsOf(parameters.gradients, gradientBuffer(0)).get(PACES),
    batch: batchRefs(model, "batch", range.count),
    evaluationBatch: evaluation ? batchRefs(evaluation, "evaluation", 1) : new Map(),
    evaluationLoss: evaluation && rowsRef("evaluation loss", lossType(evaluation), 0),
    parameters: refsOf(parameters.parameters, "parameters"),
  };
}

function wholeStep(microBatches: number): TrainingShare {
  return { rank: 0, ranges: [{ first: 0, count: microBatches }], inPlace: true };
}

/** Not a name that a parameter can have. */
const LOSS = "/loss";

const STOP = "/stop";
const PACES = "/paces";

/** What is summed over micro-batches and ranks beside the gradients: loss, wishes to stop, paces, running statistics. */
function summedBeside({
  model,
  microBatches = 1,
  share,
}: TrainingOptions): { readonly name: string; readonly type: TensorType }[] {
  if (microBatches === 1) return [];
  const floats = model.states.filter(({ type }) => isFloat(type.dtype));
  const stop: TensorType = { dtype: "float32", shape: [] };
  const paces: TensorType = { dtype: "float32", shape: [share?.ranges.length ?? 1] };
  const scalars = [
    { name: LOSS, type: lossType(model) },
    { name: STOP, type: stop },
  ];
  return [...scalars, ...(share === undefined ? [] : [{ name: PACES, type: paces }]), ...floats];
}

interface Context {
  readonly program: ProgramBuilder;
  readonly options: TrainingOptions;
  readonly share: TrainingShare;
  readonly shares: Shares;
  readonly range: Range;
  readonly parameters: ParameterPlan;
  readonly states: Layout;
  readonly sums: Accumulation;
}

interface SideContext extends Context {
  /** Additions of one buffer into another: few pairs, used again and again. */
  readonly additions: Map<string, Stage>;
  readonly gradient: GradientGraph;
  /** Which set of states is read; the other is written. */
  readonly from: number;
}

function allocate(context: Context): void {
  const { program, options, shares, range, states, sums } = context;
  const { model, evaluation, microBatches = 1 } = options;
  const { parameters, gradients } = context.parameters;
  program.buffer("parameters", parameters.byteLength);
  for (let index = 0; index < Math.max(sums.buffers, shares.slots); index++) {
    program.buffer(gradientBuffer(index), gradients.byteLength);
    if (shares.ranges.length > 1 && index < shares.slots) program.shared.add(gradientBuffer(index));
  }
  for (const name of ["states.0", "states.1"]) program.buffer(name, states.byteLength);
  if (microBatches > 1) program.buffer("states.unused", states.byteLength);
  else program.buffer("losses", byteLength(lossType(model)));
  for (const [name, { type }] of batchRefs(model, "batch", range.count)) {
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

/** Where a micro-batch that writes gradients to buffer `index` puts its loss. */
function lossRef({ options, parameters }: Context, index: number): TensorRef {
  const sums = refsOf(parameters.gradients, gradientBuffer(index));
  return sums.get(LOSS) ?? rowsRef("losses", lossType(options.model), 0);
}

/** Gradients of every micro-batch of this rank, summed as soon as the tree allows. */
function planSums(context: SideContext, gradients: readonly Run[]): Stage[] {
  const { program, sums, additions, options, parameters } = context;
  return sums.waves.flatMap(({ first, last }) => {
    // Without parallel micro-batches, one run has all threads.
    const mode = options.lanes === undefined || options.lanes === 1 ? "ordered" : "parallel";
    const runs = gradients.slice(first, last + 1);
    const stages: Stage[] = [{ name: `gradients ${first} to ${last}`, runs, mode }];
    for (const sum of sums.sums.filter(({ after }) => after === last)) {
      const buffers = { from: gradientBuffer(sum.from), into: gradientBuffer(sum.into) };
      const key = `${buffers.from} ${buffers.into}`;
      const stage = additions.get(key) ?? sumStage(program, parameters.gradients, buffers);
      additions.set(key, stage);
      stages.push(stage);
    }
    return stages;
  });
}

/** The sum over ranks; nothing where there is one rank. */
function planRanks({ program, parameters, share, shares }: Context): Stage[] {
  if (shares.ranges.length === 1) return [];
  const { rank, inPlace } = share;
  const options = { rank, inPlace, shares, bufferOf: gradientBuffer };
  return planReduce(program, parameters.gradients, options);
}

/** Running statistics, as means over all micro-batches. */
function averageStates({ program, options, parameters, states, from }: SideContext): Stage[] {
  const { microBatches = 1, model } = options;
  if (microBatches === 1 || model.states.length === 0) return [];
  const written = refsOf(states, `states.${1 - from}`);
  const sums = refsOf(parameters.gradients, gradientBuffer(0));
  const runs: Run[] = [];
  for (const [name, to] of written) {
    const sum = sums.get(name);
    if (sum !== undefined) runs.push(scaledRun(program, sum, to, 1 / microBatches));
  }
  return [{ name: "states", runs, mode: "parallel" }];
}

function gradientRun(context: SideContext, index: number): Run {
  const { options, parameters, sums, gradient, states, from } = context;
  const { model, microBatches = 1 } = options;
  const leaf = sums.leaves[index] as number;
  const own = refsOf(parameters.gradients, gradientBuffer(leaf));
  const written = refsOf(states, `states.${1 - from}`);
  const unused = refsOf(states, "states.unused");
  const outputs: Record<string, TensorRef> = {
    [model.loss]: lossRef(context, leaf),
  };
  for (const { name, next } of model.states) {
    // Floats are averaged over micro-batches; of counters, that of a rank's first micro-batch holds.
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
  const graph = program.graph("evaluation", "all", () => ({
    ...withOutputs(model.graph, [model.loss]),
    name: `${model.name} evaluation`,
  }));
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
