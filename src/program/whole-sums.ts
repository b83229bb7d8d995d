/**
 * Sums of whole gradients: a rank sums its micro-batches along the tree, and then ranks sum theirs.
 * Each rank has a range of the micro-batches, which may follow its speed.
 */
import type { Graph } from "../graph/index.ts";
import { shardAxes } from "../mesh/index.ts";
import {
  type ComputeTask,
  isOfKind,
  isPiece,
  isRepeating,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { type Accumulation, planAccumulation } from "./accumulate.ts";
import { gradientBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { type Bucket, GradientStages, type RunOf } from "./gradient-stages.ts";
import { entryRef } from "./layout.ts";
import { areInPlace, groupsOfRank, placeIn, rankGroups, shardGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { type At, type Places, threadsOf } from "./places.ts";
import type { ProgramBuilder, RunStage, Stage, TensorRef } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { planLevels, type Range } from "./shares.ts";
import { cutEvenly, readySpans, type Span, wholeSpans } from "./spans.ts";
import { type RowGather, type SumOptions, type SumPlan, sumOf } from "./sums.ts";

export class WholeSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = true;
  readonly rows: readonly RowGather[];
  readonly buckets: number;
  readonly ownership: Ownership | undefined;
  readonly #options: SumOptions;
  readonly #sums: Accumulation;
  readonly #pieces: readonly ComputeTask[];
  readonly #stages: GradientStages;

  /** Allocates the buffers of gradients. @throws INVALID_OPTION if shard groups do not follow */
  constructor(program: ProgramBuilder, options: SumOptions) {
    const { step, vectors, ground, rank, ranges, lanes } = options;
    this.#options = options;
    const groups = rankGroups(ground);
    for (const [name, ranks] of groupsOfRank(groups, rank)) program.groups.set(name, ranks);
    const isAlone = ranges.length === 1;
    const counts = ranges.map((range) => range.count);
    this.rows = isAlone ? [] : [{ group: groups.names.all, first: 0, counts }];
    const { first, count } = ranges[rank] as Range;
    this.own = Array.from({ length: count }, (_, index) => first + index);
    const reduces = step.tasks.filter(isOfKind("reduce"));
    const reproducible = reduces.every(({ combination }) => combination === "tree");
    const levels = planLevels(ranges, groups.members, { reproducible });
    const contributions = levels.ranks.contributions.filter((from) => from.rank === rank);
    this.#sums = planAccumulation(contributions, lanes);
    this.lanes = Math.max(...this.#sums.waves.map((wave) => wave.last - wave.first + 1));
    for (let index = 0; index < Math.max(this.#sums.buffers, levels.ranks.slots); index++) {
      const name = program.buffer(gradientBuffer(index), vectors.gradients.byteLength);
      if (!isAlone && index < levels.ranks.slots) program.shared.add(name);
    }
    this.#pieces = step.tasks.filter(isPiece);
    if (this.#pieces.length > 1) {
      for (const { graph } of this.#pieces) {
        program.graph(graph, threadsOf(step), () => step.graphs.get(graph) as Graph);
      }
    }
    const updates = vectors.updates.map(({ task, group }) => {
      return { axes: axesOfUpdate(step, task), byteOffset: group.byteOffset };
    });
    const sharded = updates.filter(({ axes }) => axes.length > 0);
    const isSharded = ({ byteOffset }: { readonly byteOffset: number }) =>
      sharded.some((update) => update.byteOffset === byteOffset);
    const over = sharded[0]?.axes ?? [];
    const isOfNode = over.length > 0 && over.join() === groups.axes?.join();
    // Whoever updates a part of a group alone needs no more of the gradient.
    const keeps = (group: Span["group"]) => isOfNode && isSharded(group);
    const reducing = { rank, names: groups.names, levels, bufferOf: gradientBuffer, keeps };
    const reducer = isAlone ? undefined : new Reducer(program, reducing);
    const buckets = bucketsOf(step, vectors, this.#pieces, reducer);
    this.buckets = buckets.length;
    const spans = wholeSpans(vectors.gradients);
    const pieces = this.#pieces.map(({ name }) => name);
    this.#stages = new GradientStages({ program, spans, sums: this.#sums, lanes, buckets, pieces });
    const summed = buckets.flatMap((bucket) => bucket.spans);
    if (over.length === 0 || isOfNode) {
      this.ownership = reducer?.ownership(summed);
      return;
    }
    // The ranks that divide an update are not those of a node: each has whole sums of gradients.
    const shards = shardGroups(ground, over);
    const { ranks, place } = placeIn(shards.members, rank);
    const group = shards.names.inner;
    program.groups.set(group, ranks);
    const cuts = summed
      .filter((span) => isSharded(span.group))
      .map((s) => cutEvenly(s, ranks.length));
    this.ownership = { group, isInPlace: areInPlace(shards, ground.topology), place, ranks, cuts };
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
function axesOfUpdate(
  step: StepGraph,
  { inputs }: { readonly inputs: readonly string[] },
): string[] {
  const gradient = inputs.find((name) => valueOf(step, name).role === "gradient");
  return shardAxes(valueOf(step, gradient as string).placement);
}

/**
 * What is summed over ranks together, in order: tiles by when the last of what lies in them is
 * ready.
 */
function bucketsOf(
  step: StepGraph,
  { gradients }: FlatVectors,
  computing: readonly ComputeTask[],
  reducer: Reducer | undefined,
): Bucket[] {
  const reduces = step.tasks.filter(isOfKind("reduce"));
  const names = reduces.map(({ outputs }) => outputs.map((output) => flatName(step, output)));
  const ready = names.length <= 1 ? [wholeSpans(gradients)] : readySpans(gradients, names);
  const summed = new Set(names.flat());
  // A group of which nothing is summed is left alone: gradients that travel in another form.
  const isSummed = ({ group }: Span) => group.entries.some(({ name }) => summed.has(name));
  return ready.map((all, index) => {
    const { name = "gradients", inputs = [] } = reduces[index] ?? {};
    const spans = reduces.length === 0 ? all : all.filter(isSummed);
    const after = computing.findLastIndex(({ outputs }) =>
      reduces.length === 0 ? true : inputs.some((input) => outputs.includes(input)),
    );
    const overRanks = spans.length === 0 ? [] : (reducer?.stages(spans, name) ?? []);
    return { name, spans, after: Math.max(0, after), overRanks };
  });
}
