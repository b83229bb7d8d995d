/**
 * Sums that no rank holds whole: ranks run their micro-batches in waves, and behind each piece of
 * the pass its gradients go to the ranks that own them. If parameters are sharded too, each piece
 * finds its own in a buffer that is filled just before, and used again for the piece after the
 * next. After Rajbhandari et al., "ZeRO", 2020 (stages 2 and 3): within a node, ranks read each
 * other's memory in place.
 */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import {
  isOfKind,
  MICRO_BATCH,
  madeBy,
  type PassPart,
  type StepGraph,
  type StepTask,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { BucketSums, type GradientBucket } from "./bucket-sums.ts";
import { sumsToBuddies } from "./buddies.ts";
import { besideBuffer, bucketBuffer } from "./buffers.ts";
import { flatName, gradientAxes } from "./flat.ts";
import { Gathered, gatheredRef, type Unit } from "./gathered.ts";
import { planLayout } from "./layout.ts";
import { groupsOfRank, placeIn, type RankGroups, shardGroups } from "./levels.ts";
import {
  buddiesIn,
  extentsOf,
  type Ownership,
  ownershipOf,
  ownSpans,
  updatedSpans,
} from "./ownership.ts";
import { type Computed, partsTogether, passRuns } from "./pass-runs.ts";
import { GATHER, type PieceWork, pieceTasks, REDUCE } from "./pieces.ts";
import { type At, type Places } from "./places.ts";
import {
  addTask,
  barrier,
  COMPUTE,
  type CollectiveStage,
  type ProgramBuilder,
  type RunStage,
  type Stage,
  type Task,
  type TensorRef,
} from "./program.ts";
import { planReplicas, type Replicas } from "./replica-sums.ts";
import { Room } from "./room.ts";
import { cutEvenly, readySpans, type Span, wholeSpans } from "./spans.ts";
import { type RowGather, type SumOptions, type SumPlan, sumOf } from "./sums.ts";
import { Together } from "./together.ts";
import type { Wave } from "./waves.ts";

const BUFFERS = 2;
const CONTROL = "control";
const BESIDE = "what is summed beside";

/**
 * A piece of the pass, what is gathered for it, and the gradients that it makes. It is in parts where
 * ranks that divide the model exchange something.
 */
interface ShardedPiece {
  readonly parts: readonly PassPart[];
  readonly unit: Unit | undefined;
  readonly bucket: GradientBucket | undefined;
}

export class ShardedSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = false;
  readonly ownership: Ownership;
  readonly rows: readonly RowGather[];
  readonly gathered: Gathered;
  readonly #program: ProgramBuilder;
  readonly #options: SumOptions;
  readonly #replicas: Replicas;
  readonly #sums: BucketSums;
  readonly #pieces: readonly ShardedPiece[];
  /**
   * By bucket and for what is beside them: how replicas sum what they have, and buddies get the
   * sums.
   */
  readonly #afterWaves = new Map<string, readonly (RunStage | CollectiveStage)[]>();
  /** What is summed beside the gradients: small, and whole on every rank. */
  readonly #beside: Together;
  /** What ranks tell each other. */
  readonly #control: Together;

  /** @throws INVALID_OPTION if an update needs whole parameters, or shard groups do not follow */
  constructor(program: ProgramBuilder, options: SumOptions) {
    const { step, vectors, ground, rank, lanes } = options;
    this.#program = program;
    this.#options = options;
    const groups = shardGroups(ground, gradientAxes(step, vectors));
    const { members, names } = groups;
    const { number: replica, ranks, place } = placeIn(members, rank);
    for (const [name, own] of groupsOfRank(groups, rank)) program.groups.set(name, own);
    const { microBatches } = step;
    const each = Math.floor(Math.floor(microBatches / members.length) / ranks.length);
    this.lanes = Math.min(lanes, Math.max(1, each));
    const reduces = step.tasks.filter(isOfKind("reduce"));
    this.#replicas = planReplicas(program, vectors.gradients, {
      groups,
      microBatches,
      replica,
      perWave: ranks.length * this.lanes,
      reproducible: reduces.every(({ combination }) => combination === "tree"),
    });
    const reducing = reduces.filter((task) => task.each === MICRO_BATCH);
    const buckets = reducing.map(({ outputs }) => outputs.map((name) => flatName(step, name)));
    const isGradient = ({ group }: Span) => group.key !== "summed";
    const spans = readySpans(vectors.gradients, buckets).map((own) => own.filter(isGradient));
    this.ownership = ownershipOf(ground, groups, rank, spans.flat(), buddiesIn(step));
    this.own = this.#replicas.waves.flatMap((wave) => this.#ofPlace(wave, place));
    this.rows = this.#rowGathers(groups);
    this.gathered = new Gathered(program, vectors.parameters, this.ownership);
    this.#pieces = this.#piecesOf(step);
    this.#sums = new BucketSums(program, this.ownership, this.lanes);
    const rest = reduces.filter((task) => task.each === "step").flatMap(({ outputs }) => outputs);
    const layoutOf = (isControl: boolean, tile: number) => {
      const own = rest.filter((name) => (valueOf(step, name).role === "control") === isControl);
      const items = own.map((name) => ({ name, type: valueOf(step, name).type, group: "summed" }));
      return planLayout(items, tile);
    };
    this.#beside = new Together(program, {
      layout: layoutOf(false, vectors.gradients.tile),
      group: names.inner,
      ranks: ranks.length,
      place,
    });
    this.#control = new Together(program, {
      layout: layoutOf(true, 1024),
      group: names.all,
      ranks: members.flat().length,
      place: rank,
    });
    this.#allocate();
    const buddyOptions = {
      ownership: this.ownership,
      rank,
      all: names.all,
      size: ground.mesh.size,
    };
    for (const [index, { name }] of reducing.entries()) {
      const all = spans[index] ?? [];
      const own = all.map((s) => cutEvenly(s, ranks.length)[place] as Span);
      const sums = this.#replicas.sum(own, name);
      this.#afterWaves.set(name, [...sums, ...sumsToBuddies(all, name, buddyOptions)]);
    }
    const summed = wholeSpans(vectors.gradients).filter((span) => !isGradient(span));
    this.#afterWaves.set(BESIDE, this.#replicas.sum(summed, BESIDE));
  }

  get buckets(): number {
    return this.#allBuckets.length;
  }

  get #allBuckets(): readonly GradientBucket[] {
    return this.#pieces.flatMap(({ bucket }) => bucket ?? []);
  }

  place(name: string, { lane }: At): TensorRef | undefined {
    const { step } = this.#options;
    const sum = sumOf(step, name);
    if (sum !== undefined) {
      const found = this.#beside.ref(sum, besideBuffer(lane));
      return found ?? this.#bucketRef(flatName(step, sum), lane);
    }
    const { of, role } = valueOf(step, name);
    if (role !== "parameter" || name === valueName("parameter", of)) return undefined;
    const isRead = ({ piece }: PassPart) => piece.inputs.includes(name);
    const unit = this.#pieces.find(({ parts }) => parts.some(isRead))?.unit;
    assert(unit !== undefined, `"${name}" is gathered for a piece`);
    return gatheredRef(unit, of);
  }

  #bucketRef(name: string, lane: number): TensorRef | undefined {
    for (const { room, buffer } of this.#allBuckets) {
      const found = room.ref(name, bucketBuffer(buffer, lane));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** There are no paces to follow in waves: all ranks run as many micro-batches in each. */
  control(of: string): TensorRef | undefined {
    if (of === "paces") return undefined;
    return this.#control.ref(valueName("control", of), CONTROL);
  }

  pieces(): undefined {
    return undefined;
  }

  stages(places: Places, from: number): Stage[] {
    const { waves } = this.#replicas;
    const { isInPlace, place, group } = this.ownership;
    let before = 0;
    const stages = waves.map((wave): Stage => {
      const first = before;
      const count = this.#ofPlace(wave, place).length;
      before += count;
      const of = { ...this.#options, places, first, count, from, mode: "parallel" } as const;
      const tasks = this.#tasks(wave, (part) => passRuns(part, { ...of, name: part.piece.name }));
      return { name: `wave from ${wave.first}`, mode: "tasks", tasks };
    });
    return [...(isInPlace ? [barrier("all parameters are there", group)] : []), ...stages];
  }

  /** The micro-batches of a wave that the rank at a place runs. */
  #ofPlace({ first, count }: Wave, place: number): number[] {
    const own = Array.from({ length: this.lanes }, (_, lane) => place * this.lanes + lane);
    return own.filter((index) => index < count).map((index) => first + index);
  }

  /** The ranks of a replica have neighbouring micro-batches of a wave, and replicas of the step. */
  #rowGathers({ names }: RankGroups): RowGather[] {
    const { waves, ranges } = this.#replicas;
    const ofWaves = waves.map((wave) => {
      const counts = this.ownership.ranks.map((_, place) => this.#ofPlace(wave, place).length);
      return { group: names.inner, first: wave.first, counts };
    });
    if (ranges.length === 1) return ofWaves;
    const counts = ranges.map(({ count }) => count);
    return [...ofWaves, { group: names.outer, first: 0, counts }];
  }

  #piecesOf(step: StepGraph): ShardedPiece[] {
    const { gradients } = this.#options.vectors;
    const isEach = (task: StepTask) => "each" in task && task.each === MICRO_BATCH;
    const gathers = step.tasks.filter(isOfKind("gather")).filter(isEach);
    const reduces = step.tasks.filter(isOfKind("reduce")).filter(isEach);
    let [units, buckets] = [0, 0];
    return partsTogether(step).map((parts): ShardedPiece => {
      const read = new Set(parts.flatMap(({ piece }) => piece.inputs));
      const summed = new Set(parts.flatMap(madeBy));
      const gather = gathers.find(({ outputs }) => outputs.some((v) => read.has(v)));
      const reduce = reduces.find(({ inputs }) => inputs.some((v) => summed.has(v)));
      const taken = gather?.inputs.map((input) => valueOf(step, input).of);
      const made = reduce?.outputs.map((output) => flatName(step, output));
      return {
        parts,
        unit: gather && this.gathered.unit(gather.name, taken ?? [], units++),
        bucket: reduce && {
          name: reduce.name,
          room: new Room(gradients, made ?? []),
          buffer: buckets++ % BUFFERS,
        },
      };
    });
  }

  #allocate(): void {
    const { step, vectors } = this.#options;
    const program = this.#program;
    const buckets = this.#allBuckets;
    for (let buffer = 0; buffer < BUFFERS; buffer++) {
      const own = buckets.filter((bucket) => bucket.buffer === buffer);
      const bytes = Math.max(0, ...own.map(({ room }) => room.byteLength));
      for (let lane = 0; lane < this.lanes; lane++) {
        program.shared.add(program.buffer(bucketBuffer(buffer, lane), bytes));
      }
    }
    this.#sums.allocate(buckets);
    // Only what this rank owns of gradients is ever touched, and takes memory; of their sums, which
    // are in the first accumulator, also what its wards have sent.
    for (const [index, name] of this.#replicas.accumulators.entries()) {
      const touched = index === 0 ? updatedSpans : ownSpans;
      program.touches(name, extentsOf(vectors.gradients, this.ownership, touched));
    }
    for (let lane = 0; lane < this.lanes; lane++) this.#beside.allocate(besideBuffer(lane));
    this.#control.allocate(CONTROL);
    for (const { piece } of this.#pieces.flatMap(({ parts }) => parts)) {
      program.graph(piece.graph, 1, () => step.graphs.get(piece.graph) as Graph);
    }
  }

  #tasks(wave: Wave, workOf: (part: PassPart) => Computed): Task[] {
    const isLast = this.#replicas.waves.at(-1) === wave;
    const over = (name: string) => (isLast ? (this.#afterWaves.get(name) ?? []) : []);
    const pieces = this.#pieces.map(({ parts, unit, bucket }): PieceWork => {
      const sums = bucket && {
        name: bucket.name,
        work: [...this.#sums.stages(wave, bucket), ...over(bucket.name)],
        buffer: bucketBuffer(bucket.buffer, 0),
      };
      const work = parts.flatMap(workOf);
      return { name: parts[0]?.piece.name ?? "", work, gather: unit, sums: sums ? [sums] : [] };
    });
    // Messages of all ranks go in one order; what is copied in place waits for nobody.
    const tasks = pieceTasks(pieces, this.ownership.isInPlace ? GATHER : REDUCE);
    const computed = tasks.findLastIndex(({ lane }) => lane === COMPUTE);
    const told = isLast ? this.#control.summed(CONTROL, "what ranks tell") : [];
    const rest = [...this.#sumBeside(wave), ...over(BESIDE), ...told];
    addTask(tasks, { name: BESIDE, lane: REDUCE, work: rest }, [computed]);
    return tasks;
  }

  /** Every rank sums all of it. */
  #sumBeside(wave: Wave): (RunStage | CollectiveStage)[] {
    const { gradients } = this.#options.vectors;
    const runs = this.#beside.layout.groups.flatMap((group) => {
      const { key, dtype, length } = group;
      const whole = gradients.groups.find((other) => other.key === key && other.dtype === dtype);
      assert(whole !== undefined, "what is summed beside the gradients has a place behind them");
      return this.#sums.sums(wave, { group: whole, start: 0, end: length }, (owner, lane) =>
        this.#beside.of(owner, group, besideBuffer(lane)),
      );
    });
    const lanes = Array.from({ length: Math.min(this.lanes, wave.count) }, (_, lane) => lane);
    return [
      ...lanes.flatMap((lane) => this.#beside.gather(besideBuffer(lane), "terms of all")),
      { name: "terms", runs, mode: "small" },
    ];
  }
}
