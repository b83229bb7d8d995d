/**
 * The program of a training step: what is computed before the decision to commit, and what the commit writes.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */

import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import { byteLength } from "../tensor/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import { type BatchSums, sizeOf } from "./batch-sums.ts";
import { PACES, STOP, summedBeside, termName } from "./beside.ts";
import type { CutGradient } from "./cut.ts";
import { type EvaluationPlan, evaluationStage, planEvaluation } from "./evaluation.ts";
import {
  type GradientGraph,
  gradientGraph,
  type ModelPlaces,
  modelInputs,
  rowsRef,
  scaledRun,
} from "./gradient.ts";
import { type Layout, planLayout } from "./layout.ts";
import { planLoss } from "./loss.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import { planGradients } from "./plan-gradients.ts";
import { type ParameterPlan, planParameters } from "./plan-parameters.ts";
import {
  type Program,
  ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { batchRefs, refsOf } from "./refs.ts";
import { type Levels, planLevels, type Range, type TrainingShare } from "./shares.ts";
import { type Counted, planTotals, type TotalsPlan } from "./totals.ts";
import { planUpdate, type UpdatePlan } from "./update.ts";

export interface TrainingOptions {
  /** Built for one micro-batch, to train. */
  readonly model: Model;
  /** The same model, built for evaluation, for one batch of it. */
  readonly evaluation?: Model | undefined;
  /** How many samples an evaluation looks at; those of one batch unless told. */
  readonly evaluationSamples?: number | undefined;
  readonly optimizer: Optimizer;
  /** Of the whole step, on all ranks together. Default: 1. */
  readonly microBatches?: number | undefined;
  /** This rank's part of the step; all of it unless told. */
  readonly share?: TrainingShare | undefined;
  /** Micro-batches that may run at once, each on one thread. It changes no bits. Default: 1. */
  readonly lanes?: number | undefined;
  readonly clip?: number | undefined;
}

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /** Comes first: what every micro-batch is given of the whole batch. Nothing for most losses. */
  readonly totals: readonly Stage[];
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /** The gradient of each micro-batch of this rank, as a run of the whole graph. */
  readonly gradients: readonly Run[];
  /** For each size of `evaluation`. */
  readonly evaluate: readonly Stage[];
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
  /** Of losses that are divided by counts of the whole batch, which are made first. */
  readonly counted: Counted | undefined;
  readonly update: UpdatePlan;
  /** The micro-batches that this rank computes. */
  readonly range: Range;
  /** Written before a step by each rank; after it, how many asked for a stop. Undefined for one micro-batch. */
  readonly stop: TensorRef | undefined;
  /** Seconds a micro-batch, by rank: each writes its own before a step; after it, all have all. Undefined for one rank. */
  readonly paces: TensorRef | undefined;
  /** Fields of this rank's part of the batch, by name; the key of each sample is among them if the model has one. */
  readonly batch: ReadonlyMap<string, TensorRef>;
  readonly evaluation: EvaluationPlan | undefined;
  readonly parameters: ReadonlyMap<string, TensorRef>;
}

export function planTraining(options: TrainingOptions): TrainingPlan {
  const { model, evaluation, microBatches = 1 } = options;
  const share = options.share ?? wholeStep(microBatches);
  const program = new ProgramBuilder();
  const made = planLoss(model, microBatches);
  const parameters = planParameters(
    model.parameters,
    options.optimizer,
    summedBeside(model, made.terms, microBatches, options.share?.ranges.length),
  );
  const levels = planLevels(share.ranges, share.machines, share);
  const own = levels.ranks.contributions.filter(({ rank }) => rank === share.rank);
  const range = share.ranges[share.rank] as Range;
  const sums = planAccumulation(own, options.lanes ?? 1);
  const states = planLayout(
    model.states.map(({ name, type }) => ({ name, type, group: "states" })),
    64,
  );
  const context = { program, options, share, levels, range, parameters, states, sums, made };
  allocate(context);
  const gradient = gradientGraph(model, made);
  const { evaluationSamples = evaluation && sizeOf(evaluation) } = options;
  const evaluated = evaluation && planEvaluation(program, evaluation, evaluationSamples as number);
  const totals = planTotals(program, made.totals, share);
  // A micro-batch stays on one thread, so that its bits do not depend on how many there are.
  program.graph("gradient", microBatches === 1 ? "all" : 1, () => gradient.graph);
  const { stages, cut, buckets, ownership } = planGradients(program, {
    model,
    terms: made.terms,
    gradient,
    parameters,
    levels,
    share,
    sums,
    lanes: options.lanes ?? 1,
    bufferOf: gradientBuffer,
  });
  const { clip } = options;
  const norm = planNorm(program, parameters, {
    loss: made,
    sums: termRefs(context, 0),
    clip,
    ownership,
  });
  const ranks = share.ranges.length;
  const update = planUpdate(program, parameters, { rank: share.rank, ranks, ownership });
  const side = (from: number): Side => {
    const sided = { ...context, gradient, given: totals.given, from };
    const inputs = (index: number) => modelInputs(model, placesOf(sided, "batch"), index);
    const gradients = Array.from({ length: range.count }, (_, index) => gradientRun(sided, index));
    return {
      gradients,
      totals: totals.stages((index, names) => pick(inputs(index), names)),
      compute: [...stages.stages(gradients), ...norm.stages],
      commit: [...averageStates(sided), ...update.stages],
      evaluate: (evaluated?.sizes ?? []).map((batch) => {
        const places = placesOf(sided, "evaluation", batch.model);
        return evaluationStage(batch, pick(modelInputs(batch.model, places, 0), batch.inputs));
      }),
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
    counted: totals.counted,
    update,
    range,
    stop: refsOf(parameters.gradients, gradientBuffer(0)).get(STOP),
    paces: refsOf(parameters.gradients, gradientBuffer(0)).get(PACES),
    batch: batchRefs(model, "batch", range.count),
    evaluation: evaluated,
    parameters: refsOf(parameters.parameters, "parameters"),
  };
}

function pick<T>(from: Readonly<Record<string, T>>, names: readonly string[]): Record<string, T> {
  return Object.fromEntries(names.map((name) => [name, from[name] as T]));
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
  /** What the loss is made of. */
  readonly made: BatchSums;
}

interface SideContext extends Context {
  readonly gradient: GradientGraph;
  readonly given: TotalsPlan["given"];
  /** Which set of states is read; the other is written. */
  readonly from: number;
}

function allocate(context: Context): void {
  const { program, options, levels, range, states, sums } = context;
  const { slots } = levels.ranks;
  const { model, microBatches = 1 } = options;
  const { parameters, gradients } = context.parameters;
  program.buffer("parameters", parameters.byteLength);
  for (let index = 0; index < Math.max(sums.buffers, slots); index++) {
    program.buffer(gradientBuffer(index), gradients.byteLength);
    if (levels.ranks.ranges.length > 1 && index < slots) program.shared.add(gradientBuffer(index));
  }
  for (const name of ["states.0", "states.1"]) program.buffer(name, states.byteLength);
  if (microBatches > 1) program.buffer("states.unused", states.byteLength);
  else program.buffer("losses", lossesLayout(context.made).byteLength);
  for (const [name, { type }] of batchRefs(model, "batch", range.count)) {
    program.buffer(`batch.${name}`, byteLength(type));
  }
}

function gradientBuffer(index: number): string {
  return index === 0 ? "gradients" : `gradients.${index}`;
}

/** Where a micro-batch that writes gradients to buffer `index` puts the terms of its loss. */
function termRefs({ options, parameters, made }: Context, index: number): TensorRef[] {
  const { microBatches = 1 } = options;
  const places =
    microBatches === 1
      ? refsOf(lossesLayout(made), "losses")
      : refsOf(parameters.gradients, gradientBuffer(index));
  return made.terms.map((_, term) => places.get(termName(term)) as TensorRef);
}

/** Of a batch that is computed whole: its terms are not summed with anything. */
function lossesLayout({ terms }: BatchSums): Layout {
  const items = terms.map(({ type }, term) => ({ name: termName(term), type, group: "losses" }));
  return planLayout(items, 64);
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
  const refs = termRefs(context, leaf);
  const outputs: Record<string, TensorRef> = Object.fromEntries(
    context.made.terms.map(({ output }, term) => [output, refs[term] as TensorRef]),
  );
  for (const { name, next } of model.states) {
    // Floats are averaged over micro-batches; of counters, that of a rank's first micro-batch holds.
    const place = microBatches === 1 ? written.get(name) : own.get(name);
    outputs[next] = place ?? ((index === 0 ? written : unused).get(name) as TensorRef);
  }
  for (const { name } of model.parameters) {
    outputs[gradient.gradients.get(name) as string] = own.get(name) as TensorRef;
  }
  const inputs = modelInputs(model, placesOf(context, "batch"), index);
  const given = Object.fromEntries(context.given);
  return { graph: "gradient", inputs: { ...inputs, ...given }, outputs };
}

function placesOf(
  context: SideContext,
  kind: "batch" | "evaluation",
  model: Model = context.options.model,
): ModelPlaces {
  const { parameters, states, from } = context;
  const parameterRefs = refsOf(parameters.parameters, "parameters");
  const stateRefs = refsOf(states, `states.${from}`);
  return {
    batch: (name, index) => rowsRef(`${kind}.${name}`, typeOf(model.graph, name), index),
    parameter: (name) => parameterRefs.get(name) as TensorRef,
    state: (name) => stateRefs.get(name) as TensorRef,
  };
}
