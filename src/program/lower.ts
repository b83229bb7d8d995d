/**
 * From the step of all ranks to the program of one: where its tensors lie, which graphs it runs on them, and what it exchanges with whom.
 * Running statistics are kept twice, so that a step that is not committed leaves no trace.
 */
import { assert, LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { shardAxes } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  type ComputeTask,
  GRADIENT,
  isOfKind,
  MICRO_BATCH,
  type ReduceTask,
  STOP,
  type StepGraph,
  type StepTask,
  sizeOf,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength, bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import { type Arena, planArena } from "./arena.ts";
import { activationBuffer, gradientBuffer, PARAMETERS, stateBuffer } from "./buffers.ts";
import { type EvaluationPlan, evaluationStage, planEvaluation } from "./evaluation.ts";
import { type FlatVectors, flatName, flatVectors } from "./flat.ts";
import { type Bucket, GradientStages, type RunOf } from "./gradient-stages.ts";
import { type Layout, planLayout } from "./layout.ts";
import { type Ground, groupsOfRank, type RankGroups, rankGroups } from "./levels.ts";
import { type NormPlan, planNorm } from "./norm.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, wholePieces } from "./pieces.ts";
import {
  type Program,
  ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { Reducer } from "./reduce.ts";
import { refsOf } from "./refs.ts";
import { rowsRef, scaledRun } from "./runs.ts";
import type { Held } from "./share-update.ts";
import { evenRanges, type Levels, planLevels, type Range } from "./shares.ts";
import { planUpdate, type ScalarPlan } from "./update.ts";

/** What one rank is to do. */
export interface LowerOptions {
  readonly ground: Ground;
  readonly rank: number;
  /** The micro-batches of each rank; even unless told. */
  readonly ranges?: readonly Range[] | undefined;
  /** Micro-batches that may run at once, each on one thread. It changes no bits. Default: 1. */
  readonly lanes?: number | undefined;
  /** The rules that update tasks name. */
  readonly optimizer: Optimizer;
  /** The same model, built for evaluation, for one batch of it. */
  readonly evaluation?: Model | undefined;
  /** How many samples an evaluation looks at; those of one batch unless told. */
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
  /** The gradient of each micro-batch of this rank, as a run of the whole graph. */
  readonly gradients: readonly Run[];
  /** The first of them in the pieces in which a step computes it; undefined where that is whole. */
  readonly pieces: readonly RunStage[] | undefined;
  /** For each size of `evaluation`. */
  readonly evaluate: readonly Stage[];
  readonly states: ReadonlyMap<string, TensorRef>;
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
  /** What `scalarsOf` makes before `commit`. */
  readonly scalars: readonly ScalarPlan[];
  /** By `PARAMETER.SLOT`. */
  readonly slots: ReadonlyMap<string, TensorRef>;
  /** What other ranks of this node hold of the slots. */
  readonly held: readonly Held[];
  /** Hashes of the graphs that update, the same on all ranks. */
  readonly updateHashes: readonly string[];
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

/** @throws INVALID_OPTION where ranks have no micro-batch, or the placements of the step cannot be lowered */
export function lower(step: StepGraph, options: LowerOptions): StepProgram {
  return new Lowering(step, options).plan();
}

class Lowering {
  readonly #step: StepGraph;
  readonly #options: LowerOptions;
  readonly #program = new ProgramBuilder();
  readonly #vectors: FlatVectors;
  readonly #groups: RankGroups;
  readonly #ranges: readonly Range[];
  readonly #range: Range;
  readonly #levels: Levels;
  readonly #sums: Accumulation;
  readonly #states: Layout;
  /** Terms of the loss of a batch that is computed whole: nothing is summed with them. */
  readonly #terms: Layout;
  /** What every micro-batch is given of the whole batch. */
  readonly #totals: Layout;
  readonly #pieces: readonly ComputeTask[];
  readonly #reduces: readonly ReduceTask[];
  readonly #arena: Arena;

  constructor(step: StepGraph, options: LowerOptions) {
    const { ground, rank, lanes = 1 } = options;
    this.#step = step;
    this.#options = options;
    this.#vectors = flatVectors(step, options.optimizer);
    this.#groups = rankGroups(ground);
    this.#ranges = options.ranges ?? evenRanges(step.microBatches, ground.mesh.size);
    this.#range = this.#ranges[rank] as Range;
    this.#reduces = step.tasks.filter(isOfKind("reduce"));
    const reproducible = this.#reduces.every(({ combination }) => combination === "tree");
    this.#levels = planLevels(this.#ranges, this.#groups.members, { reproducible });
    const own = this.#levels.ranks.contributions.filter((from) => from.rank === rank);
    this.#sums = planAccumulation(own, lanes);
    this.#pieces = step.tasks.filter(isPiece);
    this.#arena = planArena(this.#pieces, (name) => {
      const { role, type } = valueOf(step, name);
      return role === "activation" ? byteLength(type) : undefined;
    });
    const layoutOf = (stage: string) => planLayout(this.#itemsOf(stage), 64);
    this.#states = layoutOf("state");
    this.#terms = step.microBatches === 1 ? layoutOf("term") : planLayout([], 64);
    this.#totals = planLayout(
      this.#itemsOf("total").filter(({ name }) => !/^(all )?parts$/.test(name)),
      64,
    );
    for (const [name, ranks] of groupsOfRank(this.#groups, rank)) {
      if (ranks.length > 1) this.#program.groups.set(name, ranks);
    }
  }

  plan(): StepProgram {
    const { evaluation, evaluationSamples = evaluation && sizeOf(evaluation) } = this.#options;
    this.#allocate();
    const gradient = this.#step.graphs.get(GRADIENT) as Graph;
    const threads = this.#step.microBatches === 1 ? "all" : 1;
    // A micro-batch stays on one thread, so that its bits do not depend on how many there are.
    this.#program.graph(GRADIENT, threads, () => gradient);
    const evaluated =
      evaluation && planEvaluation(this.#program, evaluation, evaluationSamples as number);
    const reducer = this.#reducer();
    const buckets = this.#buckets();
    const stages = this.#gradientStages(reducer, buckets);
    const ownership = this.#ownership(reducer, buckets);
    const norm = this.#norm(ownership);
    const { rank, ground } = this.#options;
    const { all } = this.#groups.names;
    const sharing = { rank, ranks: ground.mesh.size, all, ownership };
    const update = planUpdate(this.#program, this.#vectors, sharing);
    const side = (from: number): Side => {
      const runOf: RunOf = (piece, microBatch, lane) =>
        this.#run(this.#pieces[piece] as ComputeTask, microBatch, lane, from);
      const wholes = Array.from({ length: this.#range.count }, (_, index) =>
        this.#wholeRun(index, from),
      );
      return {
        gradients: wholes,
        pieces: this.#isCut ? stages.computed({ first: 0, last: 0 }, runOf) : undefined,
        totals: this.#totalStages(from),
        compute: [...stages.stages(runOf), ...norm.stages],
        commit: [...this.#averages(from), ...update.stages],
        evaluate: (evaluated?.sizes ?? []).map((batch) =>
          evaluationStage(batch, this.#evaluationInputs(batch, from)),
        ),
        states: refsOf(this.#states, stateBuffer(from)),
      };
    };
    const sides: [Side, Side] = [side(0), side(1)];
    const { buffers: bytes, shared, graphs, groups } = this.#program;
    return {
      buffers: bytes,
      shared,
      graphs,
      groups,
      sides,
      arena: this.#isCut ? this.#arena : undefined,
      buckets: buckets.length,
      summary: norm.summary,
      scalars: update.scalars,
      slots: update.slots,
      held: update.held,
      updateHashes: update.hashes,
      range: this.#range,
      stop: this.#summedRef(STOP),
      paces: this.#summedRef(valueName("control", "paces")),
      batch: this.#batchRefs(),
      evaluation: evaluated,
      parameters: refsOf(this.#vectors.parameters, PARAMETERS),
    };
  }

  get #isCut(): boolean {
    return this.#pieces.length > 1;
  }

  #itemsOf(stage: string) {
    const own = [...this.#step.values].filter(([name, { of }]) => name === valueName(stage, of));
    return own.map(([, { of, type }]) => ({ name: of, type, group: stage }));
  }

  #allocate(): void {
    const program = this.#program;
    const { microBatches } = this.#step;
    const { parameters, gradients } = this.#vectors;
    const { slots } = this.#levels.ranks;
    program.buffer(PARAMETERS, parameters.byteLength);
    for (let index = 0; index < Math.max(this.#sums.buffers, slots); index++) {
      const name = program.buffer(gradientBuffer(index), gradients.byteLength);
      if (this.#ranges.length > 1 && index < slots) program.shared.add(name);
    }
    for (const side of [0, 1]) program.buffer(stateBuffer(side), this.#states.byteLength);
    if (microBatches > 1) program.buffer("states.unused", this.#states.byteLength);
    else program.buffer("losses", this.#terms.byteLength);
    for (const { buffer, type } of this.#batchRefs().values()) {
      program.buffer(buffer, byteLength(type), "host");
    }
    if (this.#totals.entries.size > 0) {
      program.buffer("totals.given", this.#totals.byteLength);
      const { type } = valueOf(this.#step, valueName("total", "all parts"));
      program.buffer("totals", byteLength(type));
      if (this.#ranges.length > 1) program.shared.add("totals");
    }
    if (!this.#isCut) return;
    for (let lane = 0; lane < this.#width; lane++) {
      program.buffer(activationBuffer(lane), this.#arena.byteLength);
    }
    for (const { graph } of this.#pieces) {
      program.graph(graph, 1, () => this.#step.graphs.get(graph) as Graph);
    }
  }

  /** Micro-batches that run at once at most. */
  get #width(): number {
    return Math.max(...this.#sums.waves.map(({ first, last }) => last - first + 1));
  }

  /** This rank's part of the fields of a batch. */
  #batchRefs(): Map<string, TensorRef> {
    return new Map(
      this.#itemsOf("batch").map(({ name, type: { dtype, shape } }) => {
        const [rows = 1, ...rest] = shape;
        const own = (rows / this.#step.microBatches) * this.#range.count;
        const type: TensorType = { dtype, shape: [own, ...rest] };
        return [name, { buffer: `batch.${name}`, byteOffset: 0, type }];
      }),
    );
  }

  #reducer(): Reducer | undefined {
    const { rank } = this.#options;
    if (this.#ranges.length === 1) return undefined;
    const sharded = new Set(
      this.#vectors.updates
        .filter((update) => this.#isSharded(update))
        .map(({ group }) => group.byteOffset),
    );
    return new Reducer(this.#program, this.#vectors.gradients, {
      rank,
      names: this.#groups.names,
      levels: this.#levels,
      bufferOf: gradientBuffer,
      // Whoever updates a part of a group alone needs no more of the gradient.
      keeps: ({ byteOffset }) => sharded.has(byteOffset),
    });
  }

  /** Whether the gradients of an update stay sharded. @throws INVALID_OPTION where they lie in a way that no sum gives */
  #isSharded({ task }: FlatVectors["updates"][number]): boolean {
    const gradient = task.inputs.find((name) => valueOf(this.#step, name).role === "gradient");
    const axes = shardAxes(valueOf(this.#step, gradient as string).placement);
    if (axes.length === 0) return false;
    const { innerAxes } = this.#groups;
    const fits =
      innerAxes?.length === axes.length && axes.every((axis) => innerAxes.includes(axis));
    if (fits) return true;
    throw new LockstepError(
      "INVALID_OPTION",
      `The step "${this.#step.name}" shards its updates over ${axes.join(" and ")}, whose ranks do not share one node.`,
      { hint: "Shard over an axis of the ranks of one node." },
    );
  }

  /** What is summed over ranks together, in order: tiles by when the last of what lies in them is ready. */
  #buckets(): Bucket[] {
    const { gradients } = this.#vectors;
    const names = this.#reduces.map(({ outputs }) =>
      outputs.map((output) => flatName(this.#step, output)),
    );
    const pieces = names.length <= 1 ? [wholePieces(gradients)] : bucketPieces(gradients, names);
    return pieces.map((own, index) => {
      const reduce = this.#reduces[index];
      const after = this.#pieces.findLastIndex(
        ({ outputs }) => reduce?.inputs.some((name) => outputs.includes(name)) ?? true,
      );
      return { name: reduce?.name ?? "gradients", pieces: own, after: Math.max(0, after) };
    });
  }

  #gradientStages(reducer: Reducer | undefined, buckets: readonly Bucket[]): GradientStages {
    return new GradientStages({
      program: this.#program,
      layout: this.#vectors.gradients,
      sums: this.#sums,
      lanes: this.#options.lanes ?? 1,
      bufferOf: gradientBuffer,
      reducer,
      buckets,
      pieces: this.#pieces.map(({ name }) => name),
    });
  }

  #ownership(reducer: Reducer | undefined, buckets: readonly Bucket[]): Ownership | undefined {
    return reducer?.ownership(buckets.flatMap(({ pieces }) => pieces));
  }

  #norm(ownership: Ownership | undefined): NormPlan {
    const task = this.#step.tasks.find(isOfKind("norm"));
    assert(task !== undefined, "a step has a norm");
    const tail = task.tail === undefined ? undefined : this.#step.graphs.get(task.tail);
    const sums = task.terms.map(({ value }) => this.#ref(value, 0, 0, 0));
    return planNorm(this.#program, this.#vectors, { task, tail, sums, ownership });
  }

  /** What is done before the gradients: what micro-batches are given of the whole batch. */
  #totalStages(from: number): Stage[] {
    const before = this.#step.tasks.slice(0, this.#step.tasks.findIndex(isPiece));
    return before.flatMap((task): Stage[] => {
      if (task.kind === "gather") return this.#gatherTotals(task.inputs[0] as string);
      assert(task.kind === "compute", `"${task.name}" comes after the gradients`);
      this.#program.graph(task.graph, 1, () => this.#step.graphs.get(task.graph) as Graph);
      const count = task.each === MICRO_BATCH ? this.#range.count : 1;
      const runs = Array.from({ length: count }, (_, index) => this.#run(task, index, 0, from));
      return [{ name: task.name, runs, mode: task.each === MICRO_BATCH ? "parallel" : "small" }];
    });
  }

  /** Each rank's rows of what micro-batches have made go to all. */
  #gatherTotals(parts: string): Stage[] {
    if (this.#ranges.length === 1) return [];
    const { type } = valueOf(this.#step, parts);
    const width = elementCount(type.shape.slice(1));
    const counts = this.#ranges.map(({ count }) => count * width);
    const count = elementCount(type.shape);
    const call = { kind: "allGather" as const, count, counts, dtype: type.dtype };
    const group = this.#groups.names.all;
    const data = { buffer: "totals", byteOffset: 0 };
    return [{ name: "totals to all", mode: "collective", group, call, data }];
  }

  /** Running statistics, as means over all micro-batches. */
  #averages(from: number): Stage[] {
    return this.#step.tasks
      .filter(isOfKind("average"))
      .map(({ name, divisor, inputs, outputs }) => {
        const runs = inputs.map((input, index) => {
          const to = this.#ref(outputs[index] as string, 0, 0, from);
          return scaledRun(this.#program, this.#ref(input, 0, 0, from), to, 1 / divisor);
        });
        return { name, runs, mode: "parallel" };
      });
  }

  #evaluationInputs(batch: EvaluationPlan["sizes"][number], from: number): Run["inputs"] {
    return Object.fromEntries(
      batch.inputs.map((name) => {
        const stage = this.#step.values.has(valueName("state", name)) ? "state" : "parameter";
        const given = batch.fields.get(name);
        return [name, given ?? this.#ref(valueName(stage, name), 0, 0, from)];
      }),
    );
  }

  /** One run of a task, on a micro-batch counted from the rank's first. */
  #run(task: ComputeTask, microBatch: number, lane: number, from: number): Run {
    const refs = (names: readonly string[], values: readonly string[]) =>
      Object.fromEntries(
        names.map((name, index) => [
          name,
          this.#ref(values[index] as string, microBatch, lane, from),
        ]),
      );
    return {
      graph: task.graph,
      inputs: refs(task.graphInputs, task.inputs),
      outputs: refs(task.graphOutputs, task.outputs),
    };
  }

  /** Pieces as one run of the whole gradient graph: their names are those of its values. */
  #wholeRun(microBatch: number, from: number): Run {
    const graph = this.#step.graphs.get(GRADIENT) as Graph;
    const runs = this.#pieces.map((piece) => this.#run(piece, microBatch, 0, from));
    const pick = (names: readonly string[], refs: readonly Run["inputs"][]) => {
      const all = Object.assign({}, ...refs) as Run["inputs"];
      return Object.fromEntries(names.map((name) => [name, all[name] as TensorRef]));
    };
    const inputs = runs.map((run) => run.inputs);
    const outputs = runs.map((run) => run.outputs);
    return {
      graph: GRADIENT,
      inputs: pick(graph.inputs, inputs),
      outputs: pick(graph.outputs, outputs),
    };
  }

  /** Where the sum of something lies; undefined for what the step does not sum. */
  #summedRef(name: string): TensorRef | undefined {
    return refsOf(this.#vectors.gradients, gradientBuffer(0)).get(name);
  }

  /**
   * Where a value lies.
   * @param microBatch of values that each micro-batch has for itself
   * @param from which set of states is read; the other is written
   */
  #ref(name: string, microBatch: number, lane: number, from: number): TensorRef {
    const { of, type } = valueOf(this.#step, name);
    const found = this.#find(name, { of, type, microBatch, lane, from });
    assert(found !== undefined, `"${name}" has a place`);
    return found;
  }

  #find(
    name: string,
    at: {
      readonly of: string;
      readonly type: TensorType;
      readonly microBatch: number;
      readonly lane: number;
      readonly from: number;
    },
  ): TensorRef | undefined {
    const { of, type, microBatch, lane, from } = at;
    const entry = (layout: Layout, buffer: string, key: string): TensorRef | undefined => {
      const found = layout.entries.get(key);
      return found && { buffer, byteOffset: found.byteOffset, type: found.type };
    };
    const stage = name.slice(0, name.length - of.length - 1);
    const { gradients, parameters } = this.#vectors;
    switch (stage) {
      case "batch":
        return rowsRef(`batch.${of}`, this.#ofMicroBatch(type), microBatch);
      case "parameter":
        return entry(parameters, PARAMETERS, of);
      case "state":
        return entry(this.#states, stateBuffer(from), of);
      case "next state": {
        // Of what is not averaged, that of a rank's first micro-batch holds.
        const isUnused = this.#step.microBatches > 1 && microBatch > 0;
        return entry(this.#states, isUnused ? "states.unused" : stateBuffer(1 - from), of);
      }
      case "activation": {
        const byteOffset = this.#arena.offsets.get(name);
        return byteOffset === undefined
          ? undefined
          : { buffer: activationBuffer(lane), byteOffset, type };
      }
      case "total":
        return this.#total(of, type, microBatch) ?? entry(this.#totals, "totals.given", of);
      case "gradient":
        if (this.#step.microBatches > 1) return entry(gradients, gradientBuffer(0), of);
        return entry(gradients, gradientBuffer(this.#leaf(microBatch)), of);
      case "term":
        if (this.#step.microBatches === 1) return entry(this.#terms, "losses", of);
        return entry(gradients, gradientBuffer(0), name);
      case "partial gradient":
        return entry(gradients, gradientBuffer(this.#leaf(microBatch)), of);
      case "partial term":
      case "partial state": {
        const sum = stage === "partial term" ? valueName("term", of) : valueName("state sum", of);
        return entry(gradients, gradientBuffer(this.#leaf(microBatch)), sum);
      }
      default:
        return entry(gradients, gradientBuffer(0), name);
    }
  }

  #ofMicroBatch({ dtype, shape: [rows = 1, ...rest] }: TensorType): TensorType {
    return { dtype, shape: [rows / this.#step.microBatches, ...rest] };
  }

  /** A row for each micro-batch of the step, or all rows. */
  #total(of: string, type: TensorType, microBatch: number): TensorRef | undefined {
    if (of === "all parts") return { buffer: "totals", byteOffset: 0, type };
    if (of !== "parts") return undefined;
    const { dtype, shape } = type;
    const own: TensorType = { dtype, shape: shape.slice(1) };
    const row = this.#range.first + microBatch;
    return {
      buffer: "totals",
      byteOffset: row * elementCount(own.shape) * bytesPerElement(dtype),
      type: own,
    };
  }

  /** The gradient buffer that a micro-batch writes. */
  #leaf(microBatch: number): number {
    return this.#sums.leaves[microBatch] as number;
  }
}

/** Whether a task is the forward and backward pass of a micro-batch, or a piece of it. */
function isPiece(task: StepTask): task is ComputeTask {
  return task.kind === "compute" && task.graph.startsWith(GRADIENT);
}
