/**
 * Sums that no rank holds whole: ranks run their micro-batches in waves, and behind each piece of the pass its gradients go to the ranks that
 * look after them. Where parameters are sharded too, each piece finds its own in a buffer that is filled just before, and used again for
 * the piece after the next. After Rajbhandari et al., "ZeRO", 2020 (stages 2 and 3): within a node, ranks read each other's memory in place.
 */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import {
  type ComputeTask,
  isOfKind,
  isPiece,
  MICRO_BATCH,
  type StepGraph,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { BucketSums, type GradientBucket } from "./bucket-sums.ts";
import { besideBuffer, bucketBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { GATHER, Gathered, gatheredRef, type Unit } from "./gathered.ts";
import { planLayout } from "./layout.ts";
import { type Ground, groupsOfShard, type ShardGroups, shardGroups } from "./levels.ts";
import { barrier, type Ownership, ownExtents } from "./ownership.ts";
import { cutPiece, type Piece, wholePieces } from "./pieces.ts";
import { type At, type Places } from "./places.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type ProgramBuilder,
  type RunStage,
  type Stage,
  type Task,
  type TensorRef,
} from "./program.ts";
import { ReplicaSums } from "./replica-sums.ts";
import { axesOf, bucketTiles, byPiece, gatherOf, reduceOf } from "./sharded-plan.ts";
import { Spans } from "./spans.ts";
import { type RowGather, type SumPlan, sumOf } from "./sums.ts";
import { Together } from "./together.ts";
import type { Wave } from "./waves.ts";

const BUFFERS = 2;
const REDUCE = "reduce";
const CONTROL = "control";
const BESIDE = "what is summed beside";

export interface ShardedSumsOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly ground: Ground;
  readonly rank: number;
  readonly lanes: number;
}

export class ShardedSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = false;
  readonly ownership: Ownership;
  readonly rows: readonly RowGather[];
  readonly #program: ProgramBuilder;
  readonly #options: ShardedSumsOptions;
  readonly #replicas: ReplicaSums;
  readonly #sums: BucketSums;
  readonly #pieces: readonly ComputeTask[];
  /** How parameters come together. */
  readonly gathered: Gathered;
  /** By piece; undefined where it takes no parameter that is gathered. */
  readonly #gathers: readonly (Unit | undefined)[];
  /** By piece; undefined where it makes no gradient. */
  readonly #buckets: readonly (GradientBucket | undefined)[];
  /** By bucket and for what is beside them: how replicas sum what they have. */
  readonly #overReplicas = new Map<string, readonly (RunStage | CollectiveStage)[]>();
  /** What is summed beside the gradients: small, and whole on every rank. */
  readonly #beside: Together;
  /** What ranks tell each other. */
  readonly #control: Together;

  /** @throws INVALID_OPTION where an update needs whole parameters, or shard groups are no neighbours */
  constructor(program: ProgramBuilder, options: ShardedSumsOptions) {
    const { step, vectors, ground, rank, lanes } = options;
    this.#program = program;
    this.#options = options;
    const groups = shardGroups(ground, axesOf(step, vectors), rank);
    const { members, names, isInPlace, replica, ranks, place } = groups;
    for (const [name, own] of groupsOfShard(groups)) program.groups.set(name, own);
    const { microBatches } = step;
    const each = Math.floor(Math.floor(microBatches / members.length) / ranks.length);
    this.lanes = Math.min(lanes, Math.max(1, each));
    const reduces = step.tasks.filter(isOfKind("reduce"));
    this.#replicas = new ReplicaSums(program, vectors.gradients, {
      microBatches,
      replicas: members.length,
      replica,
      group: names.replicas,
      perWave: ranks.length * this.lanes,
      reproducible: reduces.every(({ combination }) => combination === "tree"),
    });
    const reducing = reduces.filter((task) => task.each === MICRO_BATCH);
    const tiles = bucketTiles(step, vectors, reducing);
    const cut = (piece: Piece) => cutPiece(piece, ranks.length);
    const cuts = tiles.flat().map(cut);
    this.ownership = { group: names.shard, isInPlace, place, ranks, cuts };
    this.own = this.#replicas.waves.flatMap((wave) => this.#ownOf(wave));
    this.rows = this.#rowGathers(groups);
    this.#pieces = step.tasks.filter(isPiece);
    this.gathered = new Gathered(program, vectors.parameters, this.ownership);
    const gathers = step.tasks
      .filter(isOfKind("gather"))
      .filter((task) => task.each === MICRO_BATCH);
    this.#gathers = byPiece(
      this.#pieces,
      (piece) => gatherOf(piece, gathers),
      ({ name, inputs }, turn) => {
        const own = inputs.map((input) => valueOf(step, input).of);
        return this.gathered.unit(name, own, turn);
      },
    );
    this.#buckets = byPiece(
      this.#pieces,
      (piece) => reduceOf(piece, reducing),
      ({ name, outputs }, turn) => {
        const own = outputs.map((output) => flatName(step, output));
        return { name, spans: new Spans(vectors.gradients, own), buffer: turn % BUFFERS };
      },
    );
    this.#sums = new BucketSums(program, { ownership: this.ownership, lanes: this.lanes });
    const rest = reduces.filter((task) => task.each === "step").flatMap(({ outputs }) => outputs);
    const itemsOf = (isControl: boolean) =>
      rest
        .filter((name) => (valueOf(step, name).role === "control") === isControl)
        .map((name) => ({ name, type: valueOf(step, name).type, group: "summed" }));
    const inShard = { group: names.shard, ranks: ranks.length, place };
    const inAll = { group: names.all, ranks: members.flat().length, place: rank };
    const beside = planLayout(itemsOf(false), vectors.gradients.tile);
    this.#beside = new Together(program, { layout: beside, ...inShard });
    this.#control = new Together(program, { layout: planLayout(itemsOf(true), 1024), ...inAll });
    this.#allocate();
    for (const [index, { name }] of reducing.entries()) {
      const own = (tiles[index] ?? []).map((piece) => cut(piece)[place] as Piece);
      this.#overReplicas.set(name, this.#replicas.stages(own, name));
    }
    const summed = wholePieces(vectors.gradients).filter(({ group }) => group.key === "summed");
    this.#overReplicas.set(BESIDE, this.#replicas.stages(summed, BESIDE));
  }

  get buckets(): number {
    return this.#buckets.filter((unit) => unit !== undefined).length;
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
    const piece = this.#pieces.findIndex(({ inputs }) => inputs.includes(name));
    const unit = this.#gathers[piece];
    assert(unit !== undefined, `"${name}" is gathered for a piece`);
    return gatheredRef(unit, of);
  }

  #bucketRef(name: string, lane: number): TensorRef | undefined {
    for (const bucket of this.#buckets) {
      const found = bucket?.spans.ref(name, bucketBuffer(bucket.buffer, lane));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Waves have no paces to follow: all ranks run as many micro-batches in each. */
  control(of: string): TensorRef | undefined {
    if (of === "paces") return undefined;
    return this.#control.ref(valueName("control", of), CONTROL);
  }

  pieces(): undefined {
    return undefined;
  }

  stages(places: Places, from: number): Stage[] {
    const { waves } = this.#replicas;
    let before = 0;
    const stages = waves.map((wave): Stage => {
      const first = before;
      before += this.#ownOf(wave).length;
      const isLast = waves.at(-1) === wave;
      return {
        name: `wave from ${wave.first}`,
        mode: "tasks",
        tasks: this.#tasks(wave, first, isLast, places, from),
      };
    });
    const there = "all parameters are there";
    return [...(this.ownership.isInPlace ? [barrier(this.ownership, there)] : []), ...stages];
  }

  /** This rank's micro-batches of a wave. */
  #ownOf(wave: Wave): number[] {
    return this.#ofPlace(wave, this.ownership.place);
  }

  #ofPlace({ first, count }: Wave, place: number): number[] {
    const own = Array.from({ length: this.lanes }, (_, lane) => place * this.lanes + lane);
    return own.filter((index) => index < count).map((index) => first + index);
  }

  /** The ranks of a replica have neighbouring micro-batches of each wave, and replicas those of the step. */
  #rowGathers({ names }: ShardGroups): RowGather[] {
    const { waves, ranges } = this.#replicas;
    const ofWaves = waves.map((wave) => {
      const counts = this.ownership.ranks.map((_, place) => this.#ofPlace(wave, place).length);
      return { group: names.shard, first: wave.first, counts };
    });
    if (ranges.length === 1) return ofWaves;
    const counts = ranges.map(({ count }) => count);
    return [...ofWaves, { group: names.replicas, first: 0, counts }];
  }

  #allocate(): void {
    const { step } = this.#options;
    const program = this.#program;
    const buckets = this.#buckets.filter((bucket) => bucket !== undefined);
    for (let buffer = 0; buffer < BUFFERS; buffer++) {
      const own = buckets.filter((bucket) => bucket.buffer === buffer);
      const bytes = Math.max(0, ...own.map(({ spans }) => spans.byteLength));
      for (let lane = 0; lane < this.lanes; lane++) {
        program.shared.add(program.buffer(bucketBuffer(buffer, lane), bytes));
      }
    }
    this.#sums.allocate(buckets);
    this.#replicas.touches(ownExtents(this.#options.vectors.gradients, this.ownership));
    for (let lane = 0; lane < this.lanes; lane++) this.#beside.allocate(besideBuffer(lane));
    this.#control.allocate(CONTROL);
    for (const { graph } of this.#pieces) {
      program.graph(graph, 1, () => step.graphs.get(graph) as Graph);
    }
  }

  #tasks(wave: Wave, first: number, isLast: boolean, places: Places, from: number): Task[] {
    const tasks: Task[] = [];
    const add = (task: Omit<Task, "after">, after: readonly (number | undefined)[]): number => {
      const waits = after.filter((index) => index !== undefined).sort((a, b) => a - b);
      tasks.push({ ...task, after: [...new Set(waits)] });
      return tasks.length - 1;
    };
    // Messages of all ranks go in one order; what is copied in place waits for nobody.
    const gatherLane = this.ownership.isInPlace ? GATHER : REDUCE;
    const own = this.#ownOf(wave);
    // The last task that uses each buffer.
    const unitUsed: Record<string, number> = {};
    const bucketUsed: (number | undefined)[] = [];
    const gathered = new Map<number, number>();
    const gather = (index: number): void => {
      const unit = this.#gathers[index];
      if (unit === undefined) return;
      const task = { name: unit.name, lane: gatherLane, work: this.gathered.work(unit) };
      gathered.set(index, add(task, [unitUsed[unit.buffer]]));
    };
    let computed: number | undefined;
    gather(0);
    for (const [index, piece] of this.#pieces.entries()) {
      const bucket = this.#buckets[index];
      const runs = own.map((_, lane) =>
        places.run(piece, { microBatch: first + lane, lane, from }),
      );
      const stage: RunStage = { name: piece.name, runs, mode: "parallel" };
      const free = bucket && bucketUsed[bucket.buffer];
      // Parameters of the next piece come before the sums of this one.
      gather(index + 1);
      computed = add({ name: piece.name, lane: COMPUTE, work: [stage] }, [
        computed,
        gathered.get(index),
        free,
      ]);
      const unit = this.#gathers[index];
      if (unit !== undefined) unitUsed[unit.buffer] = computed;
      if (bucket === undefined) continue;
      const over = isLast ? (this.#overReplicas.get(bucket.name) ?? []) : [];
      const work = [...this.#sums.stages(wave, bucket), ...over];
      bucketUsed[bucket.buffer] = add({ name: bucket.name, lane: REDUCE, work }, [computed]);
    }
    const rest = [
      ...this.#sumBeside(wave),
      ...(isLast ? (this.#overReplicas.get(BESIDE) ?? []) : []),
      ...(isLast ? this.#control.summed(CONTROL, "what ranks tell") : []),
    ];
    add({ name: BESIDE, lane: REDUCE, work: rest }, [computed]);
    return tasks;
  }

  /** Every rank sums all of it. */
  #sumBeside(wave: Wave): (RunStage | CollectiveStage)[] {
    const { gradients } = this.#options.vectors;
    const { layout } = this.#beside;
    const runs = layout.groups.flatMap((group) => {
      const whole = gradients.groups.find(
        ({ key, dtype }) => key === group.key && dtype === group.dtype,
      );
      assert(whole !== undefined, "what is summed beside the gradients has a place behind them");
      const span = { group: whole, start: 0, end: group.length };
      return this.#sums.sums(wave, span, (owner, lane) =>
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
