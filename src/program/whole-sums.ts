/**
 * Sums of whole gradients: a rank sums its micro-batches along the tree, and then ranks sum theirs. Each rank has a range of the
 * micro-batches, which may follow its speed.
 */
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
import { type Ground, groupsOfRank, rankGroups, type ShardGroups, shardGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, cutPiece, type Piece, wholePieces } from "./pieces.ts";
import { type At, entryRef, type Places, threadsOf } from "./places.ts";
import type { ProgramBuilder, RunStage, Stage, TensorRef } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { planLevels, type Range } from "./shares.ts";
import { type RowGather, type SumPlan, sumOf } from "./sums.ts";

export interface WholeSumsOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly ground: Ground;
  readonly rank: number;
  /** The micro-batches of each rank. */
  readonly ranges: readonly Range[];
  readonly lanes: number;
}

export class WholeSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = true;
  readonly rows: readonly RowGather[];
  readonly ownership: Ownership | undefined;
  readonly #options: WholeSumsOptions;
  readonly #sums: Accumulation;
  readonly #pieces: readonly ComputeTask[];
  readonly #buckets: readonly Bucket[];
  readonly #stages: GradientStages;

  /** Allocates the buffers of gradients. @throws INVALID_OPTION where shard groups are no neighbours */
  constructor(program: ProgramBuilder, options: WholeSumsOptions) {
    const { step, vectors, ground, rank, ranges, lanes } = options;
    this.#options = options;
    const groups = rankGroups(ground);
    for (const [name, ranks] of groupsOfRank(groups, rank)) {
      if (ranks.length > 1) program.groups.set(name, ranks);
    }
    const counts = ranges.map((range) => range.count);
    this.rows = ranges.length === 1 ? [] : [{ group: groups.names.all, first: 0, counts }];
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
    const axes = vectors.updates.map((update) => axesOfUpdate(step, update));
    const sharded = new Set(
      vectors.updates
        .filter((_, index) => (axes[index] ?? []).length > 0)
        .map(({ group }) => group.byteOffset),
    );
    const over = axes.find((own) => own.length > 0) ?? [];
    const isOfNode = over.length > 0 && over.join() === groups.innerAxes?.join();
    // Whoever updates a part of a group alone needs no more of the gradient.
    const keeps = ({ byteOffset }: { readonly byteOffset: number }) =>
      isOfNode && sharded.has(byteOffset);
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
    const pieces = this.#buckets.flatMap((bucket) => bucket.pieces);
    const shared = pieces.filter(({ group }) => sharded.has(group.byteOffset));
    this.ownership =
      over.length === 0 || isOfNode
        ? reducer?.ownership(pieces)
        : ownershipOf(program, shardGroups(ground, over, rank), shared);
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

/** The axes over which an update is sharded. */
function axesOfUpdate(step: StepGraph, { task }: FlatVectors["updates"][number]): string[] {
  const gradient = task.inputs.find((name) => valueOf(step, name).role === "gradient");
  return shardAxes(valueOf(step, gradient as string).placement);
}

/** Of updates over ranks that are not those of a node: each has the whole sum of gradients, and updates its part. */
function ownershipOf(
  program: ProgramBuilder,
  { names, isInPlace, place, ranks }: ShardGroups,
  pieces: readonly Piece[],
): Ownership {
  program.groups.set(names.shard, ranks);
  const cuts = pieces.map((piece) => cutPiece(piece, ranks.length));
  return { group: names.shard, isInPlace, place, ranks, cuts };
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
