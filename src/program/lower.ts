/**
 * From the step of all ranks to the program of one: where its tensors lie, which graphs it runs on them, and what it exchanges with whom.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  type Arena,
  COUNTED,
  GRADIENT,
  isOfKind,
  isPiece,
  isRepeating,
  MICRO_BATCH,
  type StepGraph,
  sizeOf,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { bytesPerElement, elementCount } from "../tensor/index.ts";
import { PARAMETERS, stateBuffer, TOTALS } from "./buffers.ts";
import { type EvaluationPlan, evaluationStage, planEvaluation } from "./evaluation.ts";
import { type FlatVectors, flatVectors } from "./flat.ts";
import { type Ground, nameOfAll } from "./levels.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import { Places, threadsOf } from "./places.ts";
import {
  type GraphSpec,
  type Program,
  ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { refsOf } from "./refs.ts";
import { scaledRun } from "./runs.ts";
import { ShardedSums } from "./sharded-sums.ts";
import type { Held } from "./share-update.ts";
import { evenRanges, type Range } from "./shares.ts";
import type { SumPlan } from "./sums.ts";
import { planUpdate, type ScalarPlan } from "./update.ts";
import { WholeSums } from "./whole-sums.ts";

/** What one rank is to do. */
export interface LowerOptions {
  readonly ground: Ground;
  readonly rank: number;
  /** The micro-batches of each rank. Default: as even as can be. */
  readonly ranges?: readonly Range[] | undefined;
  /** Micro-batches that may run at once, each on one thread. It changes no bits. Default: 1. */
  readonly lanes?: number | undefined;
  /** The rules that update tasks name. */
  readonly optimizer: Optimizer;
  /** The same model, built for evaluation, for one batch of it. */
  readonly evaluation?: Model | undefined;
  /** How many samples an evaluation looks at. Default: those of one batch. */
  readonly evaluationSamples?: number | undefined;
}

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /** Comes first: what every micro-batch is given of the whole batch. Nothing for most losses. */
  readonly totals: readonly Stage[];
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /** The gradient of each micro-batch of this rank, as a run of the whole graph; none where no rank has all parameters. */
  readonly gradients: readonly Run[];
  /** The first of them in the pieces in which a step computes it; undefined where that is whole. */
  readonly pieces: readonly RunStage[] | undefined;
  /** For each size of `evaluation`. */
  readonly evaluate: readonly Stage[];
  readonly states: ReadonlyMap<string, TensorRef>;
}

/** How it is found out whether a batch holds anything that counts. */
export interface Counted {
  /** After `totals` 1 where all counts are 0, else 0. */
  readonly none: TensorRef;
  /** Written before: what stands for the counts where all are 0. It is 0, so that the loss is what it is. */
  readonly instead: TensorRef;
}

/** All that a rank does in a step, and where it finds what goes in and comes out. */
export interface StepProgram extends Program {
  readonly sides: readonly [Side, Side];
  /** What the pieces of a micro-batch hand on; undefined where the gradient graph runs whole. */
  readonly arena: Arena | undefined;
  /** In how many parts gradients are summed over ranks. */
  readonly buckets: number;
  /** What `summaryOf` reads after `compute`. */
  readonly summary: TensorRef;
  /** Of losses that are divided by counts of the whole batch, which are made first. */
  readonly counted: Counted | undefined;
  /** What `scalarsOf` makes before `commit`. */
  readonly scalars: readonly ScalarPlan[];
  /** By `PARAMETER.SLOT`. */
  readonly slots: ReadonlyMap<string, TensorRef>;
  /** What other ranks hold of slots and parameters, each alone. */
  readonly held: readonly Held[];
  /** What this rank holds of them alone, in the order in which others have it among `held`. */
  readonly kept: readonly Held[];
  /** Whether `held` can be read in place; else it has to be sent. */
  readonly isHeldInPlace: boolean;
  /** Hashes of the graphs that update, the same on all ranks. */
  readonly updateHashes: readonly string[];
  /** Micro-batches that each rank computes at once, where ranks compute in waves: the same on all. Undefined where they do not. */
  readonly atOnce: number | undefined;
  /** The micro-batches that this rank computes, by their places in the step: rows of the batch, in this order. */
  readonly microBatches: readonly number[];
  /** Written before a step by each rank; after it, how many asked for a stop. Undefined for one micro-batch. */
  readonly stop: TensorRef | undefined;
  /** Seconds a micro-batch, by rank: each writes its own before a step; after it, all have all. Undefined for one rank. */
  readonly paces: TensorRef | undefined;
  /** Fields of this rank's part of the batch, by name; the key of each sample is among them if the model has one. */
  readonly batch: ReadonlyMap<string, TensorRef>;
  readonly evaluation: EvaluationPlan | undefined;
  readonly parameters: ReadonlyMap<string, TensorRef>;
}

/** @throws INVALID_OPTION where ranks have no micro-batch, or the placements of the step cannot be lowered */
export function lower(step: StepGraph, options: LowerOptions): StepProgram {
  return new Lowering(step, options).plan();
}

class Lowering {
  readonly #step: StepGraph;
  readonly #options: LowerOptions;
  readonly #program = new ProgramBuilder();
  readonly #vectors: FlatVectors;
  /** The micro-batches of each rank, where they are ranges. */
  readonly #ranges: readonly Range[];
  readonly #sums: SumPlan;
  readonly #places: Places;

  constructor(step: StepGraph, options: LowerOptions) {
    const { ground, rank, lanes = 1 } = options;
    this.#step = step;
    this.#options = options;
    const vectors = flatVectors(step, options.optimizer);
    this.#vectors = vectors;
    this.#ranges = options.ranges ?? evenRanges(step.microBatches, ground.mesh.size);
    const summing = { step, vectors, ground, rank, ranges: this.#ranges, lanes };
    const isSharded = step.tasks.some(
      (task) => task.kind === "reduce" && task.each === MICRO_BATCH,
    );
    const sums = isSharded
      ? new ShardedSums(this.#program, summing)
      : new WholeSums(this.#program, summing);
    this.#sums = sums;
    const placing = { step, vectors, own: sums.own };
    this.#places = new Places({ ...placing, sums: (name, at) => sums.place(name, at) });
  }

  plan(): StepProgram {
    const { evaluation, evaluationSamples = evaluation && sizeOf(evaluation) } = this.#options;
    this.#places.allocate(this.#program, this.#sums.lanes);
    if (this.#ranges.length > 1 && this.#program.buffers.has("totals")) {
      this.#program.shared.add("totals");
    }
    const pieces = this.#step.tasks.filter(isPiece);
    if (!this.#isFullySharded && !isRepeating(this.#step)) {
      const whole = this.#step.graphs.get(GRADIENT) as Graph;
      this.#program.graph(GRADIENT, threadsOf(this.#step), () => whole);
    }
    const evaluated =
      evaluation && planEvaluation(this.#program, evaluation, evaluationSamples as number);
    const norm = this.#norm();
    const { rank, ground } = this.#options;
    const { ownership } = this.#sums;
    const sharing = {
      rank,
      ranks: ground.mesh.size,
      all: nameOfAll(ground.mesh),
      ownership,
      keepsParameters: this.#isFullySharded,
    };
    const update = planUpdate(this.#program, this.#vectors, sharing);
    const side = (from: number): Side => ({
      gradients: (this.#isFullySharded ? [] : this.#sums.own).map((_, microBatch) =>
        this.#places.wholeRun(pieces, { microBatch, lane: 0, from }),
      ),
      pieces: this.#sums.pieces(this.#places, from),
      totals: this.#totalStages(from),
      compute: [...this.#sums.stages(this.#places, from), ...this.#afterSums(from), ...norm.stages],
      commit: [...this.#averages(from), ...update.stages],
      evaluate: (evaluated?.sizes ?? []).map((batch) => this.#evaluation(batch, from)),
      states: refsOf(this.#places.states, stateBuffer(from)),
    });
    const sides: [Side, Side] = [side(0), side(1)];
    // Only their pieces run.
    if (this.#isFullySharded) {
      for (const { graph } of evaluated?.sizes ?? []) this.#program.graphs.delete(graph);
    }
    const { buffers, shared, graphs, groups } = this.#program;
    return {
      buffers,
      shared,
      graphs,
      groups,
      sides,
      arena: pieces.length > 1 ? this.#places.arena : undefined,
      buckets: this.#sums.buckets,
      summary: norm.summary,
      counted: this.#counted(),
      scalars: update.scalars,
      slots: update.slots,
      held: update.held.filter((part) => part.rank !== rank),
      kept: update.held.filter((part) => part.rank === rank),
      isHeldInPlace: ownership?.isInPlace ?? true,
      updateHashes: update.hashes,
      atOnce: this.#sums.followsRanges ? undefined : this.#sums.lanes,
      microBatches: this.#sums.own,
      stop: this.#sums.control("stop"),
      paces: this.#sums.control("paces"),
      batch: this.#places.batchRefs(),
      evaluation: evaluated,
      parameters: refsOf(this.#vectors.parameters, PARAMETERS),
    };
  }

  /** Whether no rank has all parameters: then nothing runs that would need all of them at once. */
  get #isFullySharded(): boolean {
    return this.#step.tasks.some(({ kind, ...task }) => {
      return kind === "gather" && "each" in task && task.each === MICRO_BATCH;
    });
  }

  #counted(): Counted | undefined {
    const { none, instead } = COUNTED;
    if (!this.#step.values.has(none)) return undefined;
    return { none: this.#places.ref(none), instead: this.#places.ref(instead) };
  }

  #norm(): NormPlan {
    const task = this.#step.tasks.find(isOfKind("norm"));
    assert(task !== undefined, "a step has a norm");
    const tail = task.tail === undefined ? undefined : this.#step.graphs.get(task.tail);
    const sums = task.terms.map(({ value }) => this.#places.ref(value));
    const { ownership } = this.#sums;
    return planNorm(this.#program, this.#vectors, { task, tail, sums, ownership });
  }

  /** What is done before the gradients: what micro-batches are given of the whole batch. */
  #totalStages(from: number): Stage[] {
    const before = this.#step.tasks.slice(0, this.#step.tasks.findIndex(isPiece));
    return before.flatMap((task): Stage[] => {
      if (task.kind === "gather") {
        return task.each === "step" ? this.#gatherTotals(task.inputs[0] as string) : [];
      }
      assert(task.kind === "compute", `"${task.name}" comes after the gradients`);
      this.#program.graph(task.graph, 1, () => this.#step.graphs.get(task.graph) as Graph);
      const isOfEach = task.each === MICRO_BATCH;
      const own = isOfEach ? this.#sums.own : [0];
      const runs = own.map((_, microBatch) =>
        this.#places.run(task, { microBatch, lane: 0, from }),
      );
      return [{ name: task.name, runs, mode: isOfEach ? "parallel" : "small" }];
    });
  }

  /** What is computed once in a step from what was summed. */
  #afterSums(from: number): Stage[] {
    // With one micro-batch nothing is summed: what follows is then what comes after the gradients.
    const last = this.#step.tasks.findLastIndex((task) => task.kind === "reduce" || isPiece(task));
    const after = this.#step.tasks.slice(last + 1).filter(isOfKind("compute"));
    return after.map((task): Stage => {
      this.#program.graph(task.graph, 1, () => this.#step.graphs.get(task.graph) as Graph);
      const run = this.#places.run(task, { microBatch: 0, lane: 0, from });
      return { name: task.name, runs: [run], mode: "parallel" };
    });
  }

  /** Each rank's rows of what micro-batches have made go to all. */
  #gatherTotals(parts: string): Stage[] {
    const { type } = valueOf(this.#step, parts);
    const { dtype, shape } = type;
    const width = elementCount(shape.slice(1));
    return this.#sums.rows.map(({ group, first, counts: rows }): Stage => {
      const counts = rows.map((count) => count * width);
      const call = { kind: "allGather" as const, counts, dtype };
      const data = { buffer: TOTALS, byteOffset: first * width * bytesPerElement(dtype) };
      return { name: "totals to all", mode: "collective", group, call, data };
    });
  }

  /** Running statistics, as means over all micro-batches. */
  #averages(from: number): Stage[] {
    const at = { microBatch: 0, lane: 0, from };
    return this.#step.tasks
      .filter(isOfKind("average"))
      .map(({ name, divisor, inputs, outputs }) => {
        const runs = inputs.map((input, index) => {
          const to = this.#places.ref(outputs[index] as string, at);
          return scaledRun(this.#program, this.#places.ref(input, at), to, 1 / divisor);
        });
        return { name, runs, mode: "parallel" };
      });
  }

  #evaluation(batch: EvaluationPlan["sizes"][number], from: number): Stage {
    const at = { microBatch: 0, lane: 0, from };
    const inputs = Object.fromEntries(
      batch.inputs.map((name) => {
        const stage = this.#step.values.has(valueName("state", name)) ? "state" : "parameter";
        return [name, batch.fields.get(name) ?? this.#places.ref(valueName(stage, name), at)];
      }),
    );
    const { gathered } = this.#sums;
    if (!this.#isFullySharded || gathered === undefined) return evaluationStage(batch, inputs);
    const { graph } = this.#program.graphs.get(batch.graph) as GraphSpec;
    return gathered.inPieces(batch.graph, graph, { inputs, outputs: { sums: batch.sums } });
  }
}
