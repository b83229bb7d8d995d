/**
 * Sums of whole gradients: a rank sums its micro-batches along the tree, and then ranks sum theirs. Each rank has a range of the
 * micro-batches, which may follow its speed.
 */
import { LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { shardAxes } from "../mesh/index.ts";
import {
  type ComputeTask,
  isOfKind,
  isPiece,
  isRepeating,
  type ReduceTask,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import { gradientBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { type Bucket, GradientStages, type RunOf } from "./gradient-stages.ts";
import type { RankGroups } from "./levels.ts";
import { bucketPieces, type Piece, wholePieces } from "./pieces.ts";
import { type At, entryRef, type Places, threadsOf } from "./places.ts";
import type { ProgramBuilder, RunStage, Stage, TensorRef } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { planLevels, type Range } from "./shares.ts";
import { type SumPlan, sumOf } from "./sums.ts";

export interface WholeSumsOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly groups: RankGroups;
  readonly rank: number;
  /** The micro-batches of each rank. */
  readonly ranges: readonly Range[];
  readonly lanes: number;
}

export class WholeSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly ownership: SumPlan["ownership"];
  readonly #options: WholeSumsOptions;
  readonly #sums: Accumulation;
  readonly #pieces: readonly ComputeTask[];
  readonly #buckets: readonly Bucket[];
  readonly #stages: GradientStages;

  /** Allocates the buffers of gradients. @throws INVALID_OPTION where gradients are sharded in a way that no sum gives */
  constructor(program: ProgramBuilder, options: WholeSumsOptions) {
    const { step, vectors, groups, rank, ranges, lanes } = options;
    this.#options = options;
    const { first, count } = ranges[rank] as Range;
    this.own = Array.from({ length: count }, (_, index) => first + index);
    this.#pieces = step.tasks.filter(isPiece);
    const reduces = step.tasks.filter(isOfKind("reduce"));
    const reproducible = reduces.every(({ combination }) => combination === "tree");
    const levels = planLevels(ranges, groups.members, { reproducible });
    const contributions = levels.ranks.contributions.filter((from) => from.rank === rank);
    this.#sums = planAccumulation(contributions, lanes);
    this.lanes = Math.max(...this.#sums.waves.map((wave) => wave.last - wave.first + 1));
    for (let index = 0; index < Math.max(this.#sums.buffers, levels.ranks.slots); index++) {
      const name = program.buffer(gradientBuffer(index), vectors.gradients.byteLength);
      if (ranges.length > 1 && index < levels.ranks.slots) program.shared.add(name);
    }
    if (this.#pieces.length > 1) {
      for (const { graph } of this.#pieces) {
        program.graph(graph, threadsOf(step), () => step.graphs.get(graph) as Graph);
      }
    }
    const sharded = new Set(
      vectors.updates
        .filter((update) => isSharded(step, groups, update))
        .map(({ group }) => group.byteOffset),
    );
    // Whoever updates a part of a group alone needs no more of the gradient.
    const keeps = ({ byteOffset }: { readonly byteOffset: number }) => sharded.has(byteOffset);
    const reducing = { rank, names: groups.names, levels, bufferOf: gradientBuffer, keeps };
    const reducer =
      ranges.length === 1 ? undefined : new Reducer(program, vectors.gradients, reducing);
    this.#buckets = bucketsOf(step, vectors, this.#pieces, reduces);
    this.#stages = new GradientStages({
      program,
      layout: vectors.gradients,
      sums: this.#sums,
      lanes,
      bufferOf: gradientBuffer,
      reducer,
      buckets: this.#buckets,
      pieces: this.#pieces.map(({ name }) => name),
    });
    this.ownership = reducer?.ownership(this.#buckets.flatMap(({ pieces }) => pieces));
  }

  get buckets(): number {
    return this.#buckets.length;
  }

  place(name: string, { microBatch }: At): TensorRef | undefined {
    const { step, vectors } = this.#options;
    const { gradients } = vectors;
    const buffer = gradientBuffer(this.#sums.leaves[microBatch] as number);
    const { role, of } = valueOf(step, name);
    // What is computed whole goes where its sum would.
    if (step.microBatches === 1) {
      return role === "gradient" ? entryRef(gradients, buffer, of) : undefined;
    }
    const sum = sumOf(step, name);
    return sum === undefined ? undefined : entryRef(gradients, buffer, flatName(step, sum));
  }

  control(of: string): TensorRef | undefined {
    return entryRef(this.#options.vectors.gradients, gradientBuffer(0), `control:${of}`);
  }

  stages(places: Places, from: number): Stage[] {
    return this.#stages.stages(this.#runOf(places, from));
  }

  pieces(places: Places, from: number): RunStage[] | undefined {
    if (this.#pieces.length === 1 || isRepeating(this.#options.step)) return undefined;
    return this.#stages.computed({ first: 0, last: 0 }, this.#runOf(places, from));
  }

  #runOf(places: Places, from: number): RunOf {
    return (piece, microBatch, lane) =>
      places.run(this.#pieces[piece] as ComputeTask, { microBatch, lane, from });
  }
}

/** Whether the gradients of an update stay sharded. @throws INVALID_OPTION where they lie in a way that no sum gives */
function isSharded(
  step: StepGraph,
  { innerAxes }: RankGroups,
  { task }: FlatVectors["updates"][number],
): boolean {
  const gradient = task.inputs.find((name) => valueOf(step, name).role === "gradient");
  const axes = shardAxes(valueOf(step, gradient as string).placement);
  if (axes.length === 0) return false;
  if (innerAxes?.length === axes.length && axes.every((axis) => innerAxes.includes(axis))) {
    return true;
  }
  throw new LockstepError(
    "INVALID_OPTION",
    `The step "${step.name}" shards its updates over ${axes.join(" and ")}, whose ranks do not share one node.`,
    { hint: "Shard over an axis of the ranks of one node." },
  );
}

/** What is summed over ranks together, in order: tiles by when the last of what lies in them is ready. */
function bucketsOf(
  step: StepGraph,
  { gradients }: FlatVectors,
  computing: readonly ComputeTask[],
  reduces: readonly ReduceTask[],
): Bucket[] {
  const names = reduces.map(({ outputs }) => outputs.map((output) => flatName(step, output)));
  const pieces = names.length <= 1 ? [wholePieces(gradients)] : bucketPieces(gradients, names);
  const summed = new Set(names.flat());
  // A group of which nothing is summed is left alone: gradients that travel in another form.
  const isSummed = ({ group }: Piece) => group.entries.some(({ name }) => summed.has(name));
  return pieces.map((all, index) => {
    const own = reduces.length === 0 ? all : all.filter(isSummed);
    const reduce = reduces[index];
    const after = computing.findLastIndex(
      ({ outputs }) => reduce?.inputs.some((name) => outputs.includes(name)) ?? true,
    );
    return { name: reduce?.name ?? "gradients", pieces: own, after: Math.max(0, after) };
  });
}
