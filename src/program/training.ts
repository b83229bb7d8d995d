/**
 * The program of a training step: what is computed before the decision to commit, and what the commit writes.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */

import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import { byteLength } from "../tensor/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import { LOSS, PACES, STOP, summedBeside, summedOutputs } from "./beside.ts";
import { type CutGradient, cutGradient } from "./cut.ts";
import {
  type GradientGraph,
  gradientGraph,
  lossType,
  type ModelPlaces,
  modelInputs,
  rowsRef,
  scaledRun,
  withOutputs,
} from "./gradient.ts";
import { GradientStages } from "./gradient-stages.ts";
import { type Layout, type LayoutGroup, planLayout } from "./layout.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, type Piece, wholePieces } from "./pieces.ts";
import { type ParameterPlan, planParameters } from "./plan-parameters.ts";
import {
  type Program,
  ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { Reducer } from "./reduce.ts";
import { batchRefs, refsOf } from "./refs.ts";
import { type Levels, planLevels, type Range } from "./shares.ts";
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
  /** The ranks of each machine, equally many: they read each other's memory in place. */
  readonly machines: readonly (readonly number[])[];
  /** Whether any ranges and machines give the same bits; yes unless told. */
  readonly reproducible?: boolean | undefined;
  /** Between machines, gradients travel in buckets of so many bytes; all at once unless told. */
  readonly bucketBytes?: number | undefined;
  /** Whether buckets travel while the rest is computed, which takes a gradient graph cut into segments. */
  readonly overlap?: boolean | undefined;
}

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /** The gradient of each micro-batch of this rank, as a run of the whole graph. */
  readonly gradients: readonly Run[];
  readonly evaluate: Stage | undefined;
  readonly states: ReadonlyMap<string, TensorRef>;
}

export interface TrainingPlan {
  readonly program: Program;
  readonly sides: readonly [Side, Side];
  readonly gradient: GradientGraph;
  /** Undefined where the gradient graph runs whole. */
  readonly cut: CutGradient | undefined;
  /** In how many pieces gradients are summed over ranks. */
  readonly buckets: number;
  /** Stages that compute some micro-batches as a step does, and nothing else. */
  computed(runs: readonly Run[]): readonly RunStage[];
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
  const parameters = planParameters(
    model.parameters,
    options.optimizer,
    summedBeside(model, microBatches, options.share?.ranges.length),
  );
  const levels = planLevels(share.ranges, share.machines, share);
  const own = levels.ranks.contributions.filter(({ rank }) => rank === share.rank);
  const range = share.ranges[share.rank] as Range;
  const sums = planAccumulation(own, options.lanes ?? 1);
  const states = planLayout(
    model.states.map(({ name, type }) => ({ name, type, group: "states" })),
    64,
  );
  const context = { program, options, share, levels, range, parameters, states, sums };
  allocate(context);
  const loss = lossRef(context, 0);
  const losses = { ...loss, type: { dtype: loss.type.dtype, shape: [1] } };
  const gradient = gradientGraph(model);
  // A micro-batch stays on one thread, so that its bits do not depend on how many there are.
  program.graph("gradient", microBatches === 1 ? "all" : 1, () => gradient.graph);
  const { stages, cut, buckets, ownership } = planGradients(context, gradient);
  const { clip } = options;
  const norm = planNorm(program, parameters, { microBatches, clip, losses, ownership });
  const ranks = share.ranges.length;
  const update = planUpdate(program, parameters, { rank: share.rank, ranks, ownership });
  const side = (from: number): Side => {
    const sided = { ...context, gradient, from };
    const gradients = Array.from({ length: range.count }, (_, index) => gradientRun(sided, index));
    return {
      gradients,
      compute: [...stages.stages(gradients), ...norm.stages],
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
    cut,
    buckets,
    computed: (runs) => stages.computed("gradients", runs),
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
  return { rank: 0, ranges: [{ first: 0, count: microBatches }], machines: [[0]] };
}

interface Context {
  readonly program: ProgramBuilder;
  readonly options: TrainingOptions;
  readonly share: TrainingShare;
  readonly levels: Levels;
  readonly range: Range;
  readonly parameters: ParameterPlan;
  readonly states: Layout;
  readonly sums: Accumulation;
}

interface SideContext extends Context {
  readonly gradient: GradientGraph;
  /** Which set of states is read; the other is written. */
  readonly from: number;
}

function allocate(context: Context): void {
  const { program, options, levels, range, states, sums } = context;
  const { slots } = levels.ranks;
  const { model, evaluation, microBatches = 1 } = options;
  const { parameters, gradients } = context.parameters;
  program.buffer("parameters", parameters.byteLength);
  for (let index = 0; index < Math.max(sums.buffers, slots); index++) {
    program.buffer(gradientBuffer(index), gradients.byteLength);
    if (levels.ranks.ranges.length > 1 && index < slots) program.shared.add(gradientBuffer(index));
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

/** How gradients are made and summed, over ranks too; the same for both sides. */
function planGradients(
  context: Context,
  gradient: GradientGraph,
): {
  readonly stages: GradientStages;
  readonly cut: CutGradient | undefined;
  readonly buckets: number;
  readonly ownership: Ownership | undefined;
} {
  const { program, options, share, levels, parameters, sums } = context;
  const { gradients: layout, updates } = parameters;
  const isAlone = share.ranges.length === 1;
  const { bucketBytes, overlap = false, machines } = share;
  const names = summedOutputs(options.model, gradient, layout);
  const isCut = bucketBytes !== undefined && machines.length > 1;
  const buckets = isCut ? cutGradient(gradient, [...names.keys()], bucketBytes) : undefined;
  const cut = overlap ? buckets : undefined;
  const inBuckets = (found: CutGradient): Piece[][] =>
    bucketPieces(
      layout,
      found.buckets.map((bucket) => bucket.map((output) => names.get(output) as string)),
    );
  const pieces = buckets === undefined ? [wholePieces(layout)] : inBuckets(buckets);
  // Whoever updates a part of a group alone needs no more of the gradient.
  const keeps = ({ byteOffset }: LayoutGroup) =>
    updates.some(
      ({ rule, group }) => rule.granularity === "element" && group.byteOffset === byteOffset,
    );
  const reducing = { rank: share.rank, levels, bufferOf: gradientBuffer, keeps };
  const reducer = isAlone ? undefined : new Reducer(program, layout, reducing);
  const stages = new GradientStages({
    program,
    layout,
    sums,
    lanes: options.lanes ?? 1,
    bufferOf: gradientBuffer,
    reducer,
    buckets: pieces,
    cut,
  });
  return { stages, cut, buckets: pieces.length, ownership: reducer?.ownership(pieces.flat()) };
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
