/**
 * Sums that no rank holds whole: ranks run their micro-batches in waves, and behind each piece of the pass its gradients go to the ranks that
 * look after them. Where parameters are sharded too, each piece finds its own in a buffer that is filled just before, and used again for
 * the piece after the next. After Rajbhandari et al., "ZeRO", 2020 (stages 2 and 3), within a node: ranks read each other's memory in place.
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
import { besideBuffer, bucketBuffer, gradientBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { GATHER, Gathered, ofOwner, type Unit } from "./gathered.ts";
import { type Layout, planLayout } from "./layout.ts";
import type { RankGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { type At, entryRef, type Places } from "./places.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type Task,
  type TensorRef,
} from "./program.ts";
import { byPiece, checkSharded, gatherOf, ownershipOf, reduceOf } from "./sharded-plan.ts";
import { BLOCK_TILES, type Span, Spans, spanRef } from "./spans.ts";
import { type SumPlan, sumOf } from "./sums.ts";
import { barrier, told } from "./told.ts";
import { leavesOf, renumber, treeGraph } from "./tree-graph.ts";
import { accumulatorsOf, leafOf, planWaves, type Wave } from "./waves.ts";

/** Buffers of gradients that are filled while the one before is summed. */
const BUFFERS = 2;
/** The lane of sums over ranks. */
const REDUCE = "reduce";

export interface ShardedSumsOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly groups: RankGroups;
  readonly rank: number;
  readonly lanes: number;
}

/** The gradients of one piece, brought together. */
interface GradientBucket {
  readonly name: string;
  readonly spans: Spans;
  /** Which of the buffers it has. */
  readonly buffer: number;
}

export class ShardedSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly ownership: Ownership;
  readonly #program: ProgramBuilder;
  readonly #options: ShardedSumsOptions;
  readonly #ranks: number;
  readonly #waves: readonly Wave[];
  readonly #pieces: readonly ComputeTask[];
  /** How parameters come together. */
  readonly gathered: Gathered;
  /** By piece; undefined where it takes no parameter that is gathered. */
  readonly #gathers: readonly (Unit | undefined)[];
  /** By piece; undefined where it makes no gradient. */
  readonly #buckets: readonly (GradientBucket | undefined)[];
  /** What is summed beside the gradients: small, and whole on every rank. */
  readonly #beside: Layout;
  /** What ranks tell each other. */
  readonly #control: Layout;

  /** @throws INVALID_OPTION where ranks do not share one node, or an update needs whole parameters */
  constructor(program: ProgramBuilder, options: ShardedSumsOptions) {
    const { step, vectors, groups, rank, lanes } = options;
    checkSharded(options);
    this.#program = program;
    this.#options = options;
    this.#ranks = groups.members[0]?.length ?? 1;
    const { microBatches } = step;
    this.lanes = Math.min(lanes, Math.max(1, Math.floor(microBatches / this.#ranks)));
    this.#waves = planWaves(microBatches, this.#ranks * this.lanes);
    this.own = this.#waves.flatMap((wave) => this.#ownOf(wave));
    this.#pieces = step.tasks.filter(isPiece);
    const reduces = step.tasks.filter(isOfKind("reduce"));
    const each = reduces.filter((task) => task.each === MICRO_BATCH);
    this.ownership = ownershipOf(step, vectors, each, {
      group: groups.names.all,
      rank,
      ranks: this.#ranks,
    });
    this.gathered = new Gathered(program, vectors.parameters, this.ownership);
    const gathers = step.tasks
      .filter(isOfKind("gather"))
      .filter((task) => task.each === MICRO_BATCH);
    this.#gathers = byPiece(
      this.#pieces,
      (piece) => gatherOf(piece, gathers),
      ({ name, inputs }, turn) => {
        const names = inputs.map((input) => valueOf(step, input).of);
        return this.gathered.unit(name, names, turn);
      },
    );
    this.#buckets = byPiece(
      this.#pieces,
      (piece) => reduceOf(piece, each),
      ({ name, outputs }, turn) => {
        const names = outputs.map((output) => flatName(step, output));
        return { name, spans: new Spans(vectors.gradients, names), buffer: turn % BUFFERS };
      },
    );
    const rest = reduces.filter((task) => task.each === "step").flatMap(({ outputs }) => outputs);
    const itemsOf = (isControl: boolean) =>
      rest
        .filter((name) => (valueOf(step, name).role === "control") === isControl)
        .map((name) => ({ name, type: valueOf(step, name).type, group: "summed" }));
    this.#beside = planLayout(itemsOf(false), vectors.gradients.tile);
    this.#control = planLayout(itemsOf(true), 1024);
    this.#allocate();
  }

  get buckets(): number {
    return this.#buckets.filter((unit) => unit !== undefined).length;
  }

  place(name: string, { lane }: At): TensorRef | undefined {
    const { step } = this.#options;
    const sum = sumOf(step, name);
    if (sum !== undefined) {
      const found = entryRef(this.#beside, besideBuffer(lane), sum);
      return found ?? this.#bucketRef(flatName(step, sum), lane);
    }
    const { of, role } = valueOf(step, name);
    if (role !== "parameter" || name === valueName("parameter", of)) return undefined;
    const piece = this.#pieces.findIndex(({ inputs }) => inputs.includes(name));
    const unit = this.#gathers[piece];
    assert(unit !== undefined, `"${name}" is gathered for a piece`);
    return unit.spans.ref(of, unit.buffer);
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
    return entryRef(this.#control, "control", valueName("control", of));
  }

  pieces(): undefined {
    return undefined;
  }

  stages(places: Places, from: number): Stage[] {
    let before = 0;
    const waves = this.#waves.map((wave): Stage => {
      const first = before;
      before += this.#ownOf(wave).length;
      const last = this.#waves.at(-1) === wave;
      return {
        name: `wave from ${wave.first}`,
        mode: "tasks",
        tasks: this.#tasks(wave, first, last, places, from),
      };
    });
    return [barrier(this.ownership, "all parameters are there"), ...waves];
  }

  /** This rank's micro-batches of a wave. */
  #ownOf({ first, count }: Wave): number[] {
    const own = Array.from(
      { length: this.lanes },
      (_, lane) => this.#options.rank * this.lanes + lane,
    );
    return own.filter((index) => index < count).map((index) => first + index);
  }

  #allocate(): void {
    const { vectors, step } = this.#options;
    const program = this.#program;
    for (let buffer = 0; buffer < BUFFERS; buffer++) {
      const own = this.#buckets.filter((bucket) => bucket?.buffer === buffer);
      const bytes = Math.max(0, ...own.map((bucket) => bucket?.spans.byteLength ?? 0));
      for (let lane = 0; lane < this.lanes; lane++) {
        program.shared.add(program.buffer(bucketBuffer(buffer, lane), bytes));
      }
    }
    for (let lane = 0; lane < this.lanes; lane++) {
      program.shared.add(program.buffer(besideBuffer(lane), this.#beside.byteLength));
    }
    // Only the tiles that this rank looks after are ever touched, and so take memory.
    for (let index = 0; index < accumulatorsOf(this.#waves); index++) {
      program.buffer(gradientBuffer(index), vectors.gradients.byteLength);
    }
    program.shared.add(program.buffer("control", this.#control.byteLength));
    program.buffer("control.sum", this.#control.byteLength);
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
    // The last task that uses each buffer.
    const unitUsed: Record<string, number> = {};
    const bucketUsed: (number | undefined)[] = [];
    let computed: number | undefined;
    for (const [index, piece] of this.#pieces.entries()) {
      const gather = this.#gathers[index];
      const bucket = this.#buckets[index];
      const gathered =
        gather === undefined
          ? undefined
          : add({ name: gather.name, lane: GATHER, work: [this.gathered.stage(gather)] }, [
              unitUsed[gather.buffer],
            ]);
      const own = this.#ownOf(wave);
      const runs = own.map((_, lane) =>
        places.run(piece, { microBatch: first + lane, lane, from }),
      );
      const stage: RunStage = { name: piece.name, runs, mode: "parallel" };
      const free = bucket && bucketUsed[bucket.buffer];
      computed = add({ name: piece.name, lane: COMPUTE, work: [stage] }, [
        computed,
        gathered,
        free,
      ]);
      if (gather !== undefined) unitUsed[gather.buffer] = computed;
      if (bucket === undefined) continue;
      const work = this.#reduce(wave, bucket);
      bucketUsed[bucket.buffer] = add({ name: bucket.name, lane: REDUCE, work }, [computed]);
    }
    const rest = [
      ...this.#reduceBeside(wave),
      ...(isLast ? told(this.#program, this.#control, this.ownership) : []),
    ];
    add({ name: "what is summed beside", lane: REDUCE, work: rest }, [computed]);
    return tasks;
  }

  /** Sums what this rank looks after, out of what all ranks have made in a wave. */
  #reduce(wave: Wave, { name, spans, buffer }: GradientBucket): (RunStage | CollectiveStage)[] {
    const own = spans
      .blocks(this.ownership, BLOCK_TILES)
      .filter(({ owner }) => owner === this.ownership.place);
    const runs = own.flatMap(({ span }) =>
      this.#sums(wave, span, (lane) => spans.placeOf(span, bucketBuffer(buffer, lane))),
    );
    return [
      barrier(this.ownership, `${name} are there`),
      { name, runs, mode: "parallel" },
      barrier(this.ownership, `${name} are read`),
    ];
  }

  /** Every rank sums all of it. */
  #reduceBeside(wave: Wave): (RunStage | CollectiveStage)[] {
    const { gradients } = this.#options.vectors;
    const runs = this.#beside.groups.flatMap((group) => {
      const whole = gradients.groups.find(
        ({ key, dtype }) => key === group.key && dtype === group.dtype,
      );
      assert(whole !== undefined, "what is summed beside the gradients has a place behind them");
      const span = { group: whole, start: 0, end: group.length };
      return this.#sums(wave, span, (lane) => spanRef({ ...span, group }, besideBuffer(lane)));
    });
    return [
      barrier(this.ownership, "terms are there"),
      { name: "terms", runs, mode: "small" },
      barrier(this.ownership, "terms are read"),
    ];
  }

  /** The sums of a wave for one span. @param leaf where a rank's micro-batch in a lane has it */
  #sums({ sums }: Wave, span: Span, leaf: (lane: number) => TensorRef): Run[] {
    const type = { dtype: span.group.dtype, shape: [span.end - span.start] };
    return sums.map(({ accumulator, combination }): Run => {
      const used = leavesOf(combination);
      const shape = renumber(combination, used);
      const graph = treeGraph(this.#program, shape, { count: used.length, type, tiles: 1 });
      const inputs = used.map((id, part) => {
        const source = leafOf(id);
        if ("accumulator" in source)
          return [`part.${part}.0`, spanRef(span, gradientBuffer(source.accumulator))];
        const owner = Math.floor(source.microBatch / this.lanes);
        return [
          `part.${part}.0`,
          ofOwner(this.ownership, owner, leaf(source.microBatch % this.lanes)),
        ];
      });
      const outputs = { "total.0": spanRef(span, gradientBuffer(accumulator)) };
      return { graph, inputs: Object.fromEntries(inputs) as Run["inputs"], outputs };
    });
  }
}
