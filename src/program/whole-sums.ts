/**
 * Sums of whole gradients: a rank sums its micro-batches along the tree, and then ranks sum theirs.
 * Each rank has a range of the micro-batches, which may follow its speed. If the forward and
 * backward pass is cut into pieces, sums over ranks travel beside the rest of the last wave.
 */
import type { Graph } from "../graph/index.ts";
import { shardAxes } from "../mesh/index.ts";
import {
  isOfKind,
  isRepeating,
  madeBy,
  type PassPart,
  passParts,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { gradientBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { entryRef } from "./layout.ts";
import { groupsOfRank, rankGroups, shardGroups } from "./levels.ts";
import { buddiesIn, type Ownership, ownershipOf } from "./ownership.ts";
import { type Computed, passRuns } from "./pass-runs.ts";
import { type PieceWork, pieceTasks } from "./pieces.ts";
import { type At, type Places, threadsOf } from "./places.ts";
import {
  type CollectiveStage,
  type ProgramBuilder,
  type RunStage,
  type Stage,
  type TaskStage,
  type TensorRef,
} from "./program.ts";
import { Reducer } from "./reduce.ts";
import { planLevels, type Range } from "./shares.ts";
import { readySpans, type Span, wholeSpans } from "./spans.ts";
import { type RowGather, type SumOptions, type SumPlan, sumOf } from "./sums.ts";
import { planWaves, type Wave, waveStage } from "./waves.ts";

/** What is summed together over ranks. */
interface Bucket {
  readonly name: string;
  readonly spans: readonly Span[];
  /** The piece of computation after which it is ready. */
  readonly after: number;
  /** The sum over ranks; nothing for one rank alone. */
  readonly overRanks: readonly (RunStage | CollectiveStage)[];
}

export class WholeSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = true;
  readonly rows: readonly RowGather[];
  readonly ownership: Ownership | undefined;
  readonly #options: SumOptions;
  /** Micro-batches are counted from the rank's first. */
  readonly #waves: readonly Wave[];
  /** The buffer that each micro-batch writes. */
  readonly #leaves: readonly number[];
  readonly #parts: readonly PassPart[];
  readonly #buckets: readonly Bucket[];
  readonly #program: ProgramBuilder;
  /** There are few different sums, which are made again and again. */
  readonly #sums = new Map<string, RunStage>();

  /** Allocates the buffers of gradients. @throws INVALID_OPTION if shard groups do not follow */
  constructor(program: ProgramBuilder, options: SumOptions) {
    const { step, vectors, ground, rank, ranges, lanes } = options;
    this.#options = options;
    this.#program = program;
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
    const { waves, accumulators } = planWaves(
      contributions.map((own) => ({ first: own.first - first, count: own.count })),
      { perWave: lanes, isInPlace: true },
    );
    this.#waves = waves;
    this.#leaves = waves.flatMap((wave) => wave.leaves);
    this.lanes = Math.max(...waves.map((wave) => wave.count));
    for (let index = 0; index < Math.max(accumulators, levels.ranks.slots); index++) {
      const name = program.buffer(gradientBuffer(index), vectors.gradients.byteLength);
      if (!isAlone && index < levels.ranks.slots) program.shared.add(name);
    }
    this.#parts = passParts(step);
    const pieces = this.#parts.map(({ piece }) => piece);
    if (pieces.length > 1 || options.exchanges !== undefined) {
      for (const { graph } of pieces) {
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
    // Whoever updates a part of a group alone needs no more of the gradient; buddies need all of it.
    const buddies = buddiesIn(step);
    const keeps = (group: Span["group"]) => isOfNode && buddies.length === 0 && isSharded(group);
    const reducing = { rank, names: groups.names, levels, bufferOf: gradientBuffer, keeps };
    const reducer = isAlone ? undefined : new Reducer(program, reducing);
    this.#buckets = bucketsOf(step, vectors, this.#parts, reducer);
    if (over.length === 0) return;
    const shards = shardGroups(ground, over);
    const summed = this.#buckets.flatMap((bucket) => bucket.spans);
    this.ownership = ownershipOf(
      ground,
      shards,
      rank,
      summed.filter((s) => isSharded(s.group)),
      buddies,
    );
    program.groups.set(this.ownership.group, this.ownership.ranks);
  }

  get buckets(): number {
    return this.#buckets.length;
  }

  place(name: string, { microBatch }: At): TensorRef | undefined {
    const { step, vectors } = this.#options;
    const { gradients } = vectors;
    const buffer = gradientBuffer(this.#leaves[microBatch] as number);
    const { role, of } = valueOf(step, name);
    const sum = sumOf(step, name);
    // What is computed whole goes where its sum would.
    if (sum === undefined && step.microBatches === 1) {
      return role === "gradient" ? entryRef(gradients, buffer, of) : undefined;
    }
    return sum === undefined ? undefined : entryRef(gradients, buffer, flatName(step, sum));
  }

  control(of: string): TensorRef | undefined {
    return entryRef(this.#options.vectors.gradients, gradientBuffer(0), `control:${of}`);
  }

  stages(places: Places, from: number): Stage[] {
    const spans = wholeSpans(this.#options.vectors.gradients);
    return this.#waves.flatMap((wave): Stage[] => {
      const computed = this.#computed(wave, places, from);
      const isLast = wave === this.#waves.at(-1);
      if (isLast && computed.length > 1) return [this.#overlapped(wave, computed)];
      const stages = computed.flat();
      const overRanks = isLast ? this.#buckets.flatMap((bucket) => bucket.overRanks) : [];
      return [...stages, ...this.#sum(wave, "all", spans), ...overRanks];
    });
  }

  pieces(places: Places, from: number): RunStage[] | undefined {
    if (this.#parts.length === 1 || isRepeating(this.#options.step)) return undefined;
    return this.#computed({ first: 0, count: 1 }, places, from).map(([run]) => run);
  }

  /**
   * Some micro-batches at once, piece by piece, each with what is exchanged behind it. Nothing of
   * ranks that have other samples is needed.
   */
  #computed({ first, count }: Range, places: Places, from: number): Computed[] {
    // Without parallel micro-batches, one run has all threads.
    const isWhole = this.#parts.length === 1 && this.#options.lanes === 1;
    return this.#parts.map((part): Computed => {
      const name = `${part.piece.name} ${first} to ${first + count - 1}`;
      const mode = isWhole ? "ordered" : "parallel";
      return passRuns(part, { ...this.#options, places, first, count, from, name, mode });
    });
  }

  /** The last wave: sums over ranks travel beside the pieces that are still computed. */
  #overlapped(wave: Wave, computed: readonly Computed[]): TaskStage {
    const pieces = computed.map((work, piece): PieceWork => {
      const sums = [...this.#buckets.entries()].filter(([, { after }]) => after === piece);
      return {
        name: work[0].name,
        work,
        sums: sums.map(([index, { name, spans, overRanks }]) => {
          return { name, work: [...this.#sum(wave, index, spans), ...overRanks] };
        }),
      };
    });
    const last = wave.first + wave.count - 1;
    return { name: `gradients ${wave.first} to ${last}`, mode: "tasks", tasks: pieceTasks(pieces) };
  }

  /** What is summed after a wave, in all of the gradient or in a bucket of it. */
  #sum(wave: Wave, of: number | "all", spans: readonly Span[]): readonly RunStage[] {
    if (wave.sums.length === 0 || spans.length === 0) return [];
    const key = JSON.stringify([wave.sums, of]);
    const stage = this.#sums.get(key) ?? waveStage(this.#program, wave, spans);
    this.#sums.set(key, stage);
    return [stage];
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
  parts: readonly PassPart[],
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
    const after = parts.findLastIndex((part) => {
      const made = madeBy(part);
      return reduces.length === 0 || inputs.some((input) => made.includes(input));
    });
    const overRanks = spans.length === 0 ? [] : (reducer?.stages(spans, name) ?? []);
    return { name, spans, after: Math.max(0, after), overRanks };
  });
}
