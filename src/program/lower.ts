/**
 * Lowers the step of all ranks to the program of one: where its tensors lie, which graphs it runs
 * on them, and what it exchanges with whom. Running statistics are kept twice, so that a step that
 * is not committed leaves no trace.
 */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { modelAxes } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  COUNTED,
  type ComputeTask,
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
import { Across } from "./across.ts";
import { PARAMETERS, stateBuffer, TOTALS } from "./buffers.ts";
import { type EvaluationPlan, evaluationStage, planEvaluation } from "./evaluation.ts";
import { type FlatVectors, flatVectors } from "./flat.ts";
import { refsOf } from "./layout.ts";
import { type Ground, nameOfAll } from "./levels.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import { wardsOf } from "./ownership.ts";
import { Places, type SumPlaces, threadsOf } from "./places.ts";
import {
  allGather,
  barrier,
  type GraphSpec,
  ProgramBuilder,
  type RunStage,
  type Stage,
} from "./program.ts";
import { scaledRun } from "./runs.ts";
import { ShardedSums } from "./sharded-sums.ts";
import { evenRanges, type Range } from "./shares.ts";
import { StagedSums } from "./staged-sums.ts";
import type { Counted, Side, StepProgram } from "./step-program.ts";
import type { SumPlan } from "./sums.ts";
import { planUpdate } from "./update.ts";
import { WholeSums } from "./whole-sums.ts";
import { withRanks } from "./with-ranks.ts";

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

/**
 * Ranks that have the same part of the model share a step as if they were alone; what goes between
 * parts is added to it.
 * @throws INVALID_OPTION if a rank has no micro-batch, or placements cannot be lowered
 */
export function lower(step: StepGraph, options: LowerOptions): StepProgram {
  const { mesh } = options.ground;
  if (modelAxes(mesh).length === 0) return new Lowering(step, options).plan();
  const across = new Across(step, options.ground, options.rank);
  const { ground, place } = across;
  const own = new Lowering(across.step, { ...options, ground, rank: place }, across).plan();
  return { ...withRanks(own, across.ranks), ...across.told(own) };
}

class Lowering {
  readonly #step: StepGraph;
  readonly #options: LowerOptions;
  readonly #program = new ProgramBuilder();
  readonly #vectors: FlatVectors;
  readonly #sums: SumPlan;
  readonly #places: Places;
  /** Whether no rank has all parameters: then nothing runs that needs all of them at once. */
  readonly #isFullySharded: boolean;
  readonly #across: Across | undefined;

  constructor(step: StepGraph, options: LowerOptions, across?: Across) {
    const { ground, rank, lanes = 1, optimizer } = options;
    this.#step = step;
    this.#options = options;
    this.#across = across;
    this.#vectors = flatVectors(step, optimizer);
    const vectors = this.#vectors;
    const ranges = options.ranges ?? evenRanges(step.microBatches, ground.mesh.size);
    const isEach = ({ each }: { readonly each: string }) => each === MICRO_BATCH;
    const isStaged = step.pipeline !== undefined;
    this.#isFullySharded = isStaged || step.tasks.filter(isOfKind("gather")).some(isEach);
    const isSharded = step.tasks.filter(isOfKind("reduce")).some(isEach);
    const Sums = isStaged ? StagedSums : isSharded ? ShardedSums : WholeSums;
    const exchanges = across?.exchanges(this.#program);
    const of = { step, vectors, exchanges };
    const sums = new Sums(this.#program, { ...of, ground, rank, ranges, lanes });
    this.#sums = sums;
    const sumPlaces: SumPlaces = (name, at) => sums.place(name, at);
    this.#places = new Places({ ...of, own: sums.own, sums: sumPlaces });
    this.#places.allocate(this.#program, sums.lanes);
    exchanges?.allocate(sums.lanes);
    if (ranges.length > 1 && this.#program.buffers.has(TOTALS)) this.#program.shared.add(TOTALS);
  }

  plan(): StepProgram {
    const { evaluation, evaluationSamples = evaluation && sizeOf(evaluation) } = this.#options;
    const pieces = this.#step.tasks.filter(isPiece);
    const isWhole = !this.#isFullySharded && this.#across === undefined;
    if (isWhole && !isRepeating(this.#step)) {
      this.#program.graph(GRADIENT, threadsOf(this.#step), () => this.#graph(GRADIENT));
    }
    const evaluated =
      evaluation && planEvaluation(this.#program, evaluation, evaluationSamples as number);
    const norm = this.#norm();
    const stop = this.#sums.control("stop");
    const told = this.#across?.tell(this.#program, stop);
    const { rank, ground } = this.#options;
    const { ownership } = this.#sums;
    const parts = { vectors: this.#vectors, ownership, places: this.#places };
    const summed = this.#across?.sums(this.#program, parts) ?? [];
    const update = planUpdate(this.#program, this.#vectors, {
      rank,
      ranks: ground.mesh.size,
      all: nameOfAll(ground.mesh),
      ownership,
      keepsParameters: this.#isFullySharded,
      lanes: this.#options.lanes ?? 1,
    });
    const isOneGroup = this.#across === undefined && update.journal === undefined;
    // Who reads parts of others in place finds them all of one step.
    const updated = this.#across?.isModelDivided
      ? [this.#across.barrier(this.#program, "new parts are there")]
      : [];
    const together = isOneGroup ? [] : this.#together();
    const side = (from: number): Side => ({
      gradients: (isWhole ? this.#sums.own : []).map((_, microBatch) =>
        this.#places.wholeRun(pieces, { microBatch, lane: 0, from }),
      ),
      pieces: isWhole ? this.#sums.pieces(this.#places, from) : undefined,
      totals: this.#totalStages(from),
      compute: [
        ...this.#sums.stages(this.#places, from),
        ...summed,
        ...(told?.stages ?? []),
        ...this.#afterSums(from),
        ...norm.stages,
        ...together,
      ],
      commit: [...this.#averages(from), ...update.stages, ...updated],
      evaluate: (evaluated?.sizes ?? []).map((batch) => this.#evaluation(batch, from)),
      states: refsOf(this.#places.states, stateBuffer(from)),
    });
    this.#across?.share(this.#program, update.slots.values());
    const sides: [Side, Side] = [side(0), side(1)];
    // Only their pieces run.
    if (this.#isFullySharded || this.#across?.isModelDivided === true) {
      for (const { graph } of evaluated?.sizes ?? []) this.#program.graphs.delete(graph);
    }
    const { buffers, shared, graphs, groups } = this.#program;
    return {
      buffers,
      shared,
      graphs,
      groups,
      sides,
      arena:
        pieces.length > 1 && this.#step.pipeline === undefined ? this.#places.arena : undefined,
      buckets: this.#sums.buckets,
      summary: norm.summary,
      counted: this.#counted(),
      scalars: update.scalars,
      slots: update.slots,
      held: update.held.filter((part) => part.rank !== rank),
      kept: update.held.filter((part) => part.rank === rank),
      wards: wardsOf(ownership),
      owners: ownership && { groups: ownership.groups, buddies: ownership.buddies },
      gathered: update.gathered,
      places: this.#sums.places,
      divided: undefined,
      isHeldInPlace: ownership?.isInPlace ?? true,
      updateHashes: update.hashes,
      journal: update.journal,
      atOnce: this.#sums.followsRanges ? undefined : this.#sums.lanes,
      microBatches: this.#sums.own,
      stop: told?.place ?? stop,
      paces: this.#sums.control("paces"),
      batch: this.#places.batchRefs(),
      evaluation: evaluated,
      parameters: refsOf(this.#vectors.parameters, PARAMETERS),
    };
  }

  /**
   * No rank decides before all ranks have the sums with which they can commit alone. Where all read
   * each other's memory in one group, whoever has its own sums knows that of all.
   */
  #together(): Stage[] {
    if (this.#across !== undefined)
      return [this.#across.barrier(this.#program, "all have their sums")];
    const { mesh, topology } = this.#options.ground;
    const isOneGroup = (this.#sums.ownership?.groups.length ?? 1) === 1;
    if (topology.nodes.length === 1 && isOneGroup) return [];
    return [barrier("all have their sums", nameOfAll(mesh))];
  }

  #graph(name: string): Graph {
    return this.#step.graphs.get(name) as Graph;
  }

  #counted(): Counted | undefined {
    const { none, instead } = COUNTED;
    if (!this.#step.values.has(none)) return undefined;
    return { none: this.#places.ref(none), instead: this.#places.ref(instead) };
  }

  #norm(): NormPlan {
    const task = this.#step.tasks.find(isOfKind("norm"));
    assert(task !== undefined, "a step has a norm");
    const tail = task.tail === undefined ? undefined : this.#graph(task.tail);
    const sums = task.terms.map(({ value }) => this.#places.ref(value));
    const { ownership } = this.#sums;
    const parts = this.#across?.partGroups(this.#program);
    return planNorm(this.#program, this.#vectors, { task, tail, sums, ownership, parts });
  }

  /** What is done before the gradients: it makes the totals that micro-batches are given. */
  #totalStages(from: number): Stage[] {
    const before = this.#step.tasks.slice(0, this.#step.tasks.findIndex(isPiece));
    return before.flatMap((task): Stage[] => {
      if (task.kind === "gather") {
        return task.each === "step" ? this.#gatherTotals(task.inputs[0] as string) : [];
      }
      assert(task.kind === "compute", `"${task.name}" comes after the gradients`);
      const isOfEach = task.each === MICRO_BATCH;
      const count = isOfEach ? this.#sums.own.length : 1;
      return [this.#computed(task, count, isOfEach ? "parallel" : "small", from)];
    });
  }

  /** What is computed once in a step from what was summed. */
  #afterSums(from: number): Stage[] {
    // With one micro-batch nothing is summed: what follows is then what comes after the gradients.
    const last = this.#step.tasks.findLastIndex((task) => task.kind === "reduce" || isPiece(task));
    const after = this.#step.tasks.slice(last + 1).filter(isOfKind("compute"));
    return after.map((task) => this.#computed(task, 1, "parallel", from));
  }

  /** One run of a task for each of the first `count` micro-batches of this rank. */
  #computed(task: ComputeTask, count: number, mode: RunStage["mode"], from: number): RunStage {
    this.#program.graph(task.graph, 1, () => this.#graph(task.graph));
    const runs = Array.from({ length: count }, (_, microBatch) =>
      this.#places.run(task, { microBatch, lane: 0, from }),
    );
    return { name: task.name, runs, mode };
  }

  /** Each rank's rows of what micro-batches have made go to all. */
  #gatherTotals(parts: string): Stage[] {
    const { type } = valueOf(this.#step, parts);
    const { dtype, shape } = type;
    const width = elementCount(shape.slice(1));
    return this.#sums.rows.map(({ group, first, counts: rows }): Stage => {
      const counts = rows.map((count) => count * width);
      const data = { buffer: TOTALS, byteOffset: first * width * bytesPerElement(dtype) };
      return allGather("totals to all", group, { counts, dtype }, data);
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
    const { gathered, ownership } = this.#sums;
    const { graph } = this.#program.graphs.get(batch.graph) as GraphSpec;
    const places = { inputs, outputs: { sums: batch.sums } };
    const isSharded = this.#isFullySharded && gathered !== undefined;
    if (this.#across?.isModelDivided === true) {
      const { parameters } = this.#vectors;
      const sharded = isSharded && ownership !== undefined ? { gathered, ownership } : undefined;
      return this.#across.runWhole(this.#program, batch.graph, graph, {
        ...places,
        parameters,
        sharded,
      });
    }
    if (!isSharded) return evaluationStage(batch, inputs);
    return gathered.inPieces(batch.graph, graph, places);
  }
}
