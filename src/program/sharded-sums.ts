/**
 * Sums that no rank holds whole: ranks run their micro-batches in waves, and behind each piece of the pass its gradients go to the ranks that
 * look after them. Where parameters are sharded too, each piece finds its own in a buffer that is filled just before, and used again for
 * the piece after the next. After Rajbhandari et al., "ZeRO", 2020 (stages 2 and 3), within a node: ranks read each other's memory in place.
 */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { type ComputeTask, isOfKind, MICRO_BATCH, valueName, valueOf } from "../plan/index.ts";
import { gradientBuffer, PARAMETERS } from "./buffers.ts";
import { flatName } from "./flat.ts";
import type { Layout } from "./layout.ts";
import type { Ownership } from "./ownership.ts";
import { type At, entryRef, isPiece, type Places } from "./places.ts";
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
import { copyGraph } from "./runs.ts";
import {
  BUFFERS,
  besideBuffer,
  bucketBuffer,
  bucketRef,
  bucketUnits,
  checkSharding,
  gatherUnits,
  ownershipOf,
  type ShardedSumsOptions,
  type Unit,
  unitBuffer,
  wholeLayouts,
} from "./sharded-units.ts";
import { type Span, spanRef } from "./spans.ts";
import { type SumPlan, sumOf } from "./sums.ts";
import { chain, leavesOf, renumber, treeGraph } from "./tree-graph.ts";
import { accumulatorsOf, leafOf, planWaves, type Wave } from "./waves.ts";

/** Tiles that one small run copies or sums. */
const BLOCK_TILES = 16;
const GATHER = "gather";
const REDUCE = "reduce";

export class ShardedSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly ownership: Ownership;
  readonly #program: ProgramBuilder;
  readonly #options: ShardedSumsOptions;
  readonly #ranks: number;
  readonly #waves: readonly Wave[];
  readonly #pieces: readonly ComputeTask[];
  /** By piece; undefined where it gathers or sums nothing. */
  readonly #gathers: readonly (Unit | undefined)[];
  readonly #buckets: readonly (Unit | undefined)[];
  /** What is summed beside the gradients: small, and whole on every rank. */
  readonly #beside: Layout;
  /** What ranks tell each other. */
  readonly #control: Layout;

  /** @throws INVALID_OPTION where ranks do not share one node, or an update needs whole parameters */
  constructor(program: ProgramBuilder, options: ShardedSumsOptions) {
    const { step, vectors, groups, rank, lanes } = options;
    checkSharding(options);
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
    this.#gathers = gatherUnits(options, this.#pieces);
    this.#buckets = bucketUnits(options, this.#pieces, each);
    const { beside, control } = wholeLayouts(options, reduces);
    this.#beside = beside;
    this.#control = control;
    this.#allocate();
  }

  get buckets(): number {
    return this.#buckets.filter((unit) => unit !== undefined).length;
  }

  place(name: string, { lane }: At): TensorRef | undefined {
    const { step, vectors } = this.#options;
    const sum = sumOf(step, name);
    if (sum !== undefined) {
      const found = entryRef(this.#beside, besideBuffer(lane), sum);
      return found ?? bucketRef(this.#buckets, flatName(step, sum), lane);
    }
    const { of, role } = valueOf(step, name);
    if (role !== "parameter" || name === valueName("parameter", of)) return undefined;
    const piece = this.#pieces.findIndex(({ inputs }) => inputs.includes(name));
    const unit = this.#gathers[piece];
    assert(unit !== undefined, `"${name}" is gathered for a piece`);
    return (
      unit.spans.ref(of, unitBuffer(unit.buffer)) ?? entryRef(vectors.parameters, PARAMETERS, of)
    );
  }

  control(of: string): TensorRef | undefined {
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
    return [this.#barrier("all parameters are there"), ...waves];
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
    const most = (units: readonly (Unit | undefined)[], buffer: number) =>
      Math.max(0, ...units.map((unit) => (unit?.buffer === buffer ? unit.spans.byteLength : 0)));
    for (let buffer = 0; buffer < BUFFERS; buffer++) {
      program.buffer(unitBuffer(buffer), most(this.#gathers, buffer));
      for (let lane = 0; lane < this.lanes; lane++) {
        program.shared.add(program.buffer(bucketBuffer(buffer, lane), most(this.#buckets, buffer)));
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
    program.shared.add(PARAMETERS);
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
    const unitUsed: (number | undefined)[] = [];
    const bucketUsed: (number | undefined)[] = [];
    let computed: number | undefined;
    for (const [index, piece] of this.#pieces.entries()) {
      const gather = this.#gathers[index];
      const bucket = this.#buckets[index];
      const gathered =
        gather === undefined
          ? undefined
          : add({ name: gather.name, lane: GATHER, work: [this.#gather(gather)] }, [
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
    const rest = [...this.#reduceBeside(wave), ...(isLast ? this.#reduceControl() : [])];
    add({ name: "what is summed beside", lane: REDUCE, work: rest }, [computed]);
    return tasks;
  }

  /** Copies a unit of parameters together, out of the memory of those who look after it. */
  #gather({ name, spans, buffer }: Unit): RunStage {
    const runs = spans.blocks(this.ownership, BLOCK_TILES).map(({ owner, span }): Run => {
      const target = spans.placeOf(span, unitBuffer(buffer));
      const graph = copyGraph(this.#program, span);
      return {
        graph,
        inputs: { from: this.#of(owner, spanRef(span, PARAMETERS)) },
        outputs: { to: target },
      };
    });
    return { name, runs, mode: "parallel" };
  }

  /** Sums what this rank looks after, out of what all ranks have made in a wave. */
  #reduce(wave: Wave, { name, spans, buffer }: Unit): (RunStage | CollectiveStage)[] {
    const own = spans
      .blocks(this.ownership, BLOCK_TILES)
      .filter(({ owner }) => owner === this.ownership.place);
    const runs = own.flatMap(({ span }) =>
      this.#sums(wave, span, (lane) => spans.placeOf(span, bucketBuffer(buffer, lane))),
    );
    return [
      this.#barrier(`${name} are there`),
      { name, runs, mode: "parallel" },
      this.#barrier(`${name} are read`),
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
      this.#barrier("terms are there"),
      { name: "terms", runs, mode: "small" },
      this.#barrier("terms are read"),
    ];
  }

  #reduceControl(): (RunStage | CollectiveStage)[] {
    const runs = this.#control.groups.map((group): Run => {
      const span = { group, start: 0, end: group.length };
      const type = { dtype: group.dtype, shape: [group.length] };
      const shape = chain(this.#ranks);
      const graph = treeGraph(this.#program, shape, { count: this.#ranks, type, tiles: 1 });
      const inputs = Object.fromEntries(
        Array.from({ length: this.#ranks }, (_, rank) => [
          `part.${rank}.0`,
          this.#of(rank, spanRef(span, "control")),
        ]),
      );
      return { graph, inputs, outputs: { "total.0": spanRef(span, "control.sum") } };
    });
    const back = this.#control.groups.map((group): Run => {
      const span = { group, start: 0, end: group.length };
      return {
        graph: copyGraph(this.#program, span),
        inputs: { from: spanRef(span, "control.sum") },
        outputs: { to: spanRef(span, "control") },
      };
    });
    return [
      this.#barrier("what ranks tell is there"),
      { name: "what ranks tell", runs, mode: "small" },
      this.#barrier("what ranks tell is read"),
      { name: "what ranks have told", runs: back, mode: "small" },
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
        return [`part.${part}.0`, this.#of(owner, leaf(source.microBatch % this.lanes))];
      });
      const outputs = { "total.0": spanRef(span, gradientBuffer(accumulator)) };
      return { graph, inputs: Object.fromEntries(inputs) as Run["inputs"], outputs };
    });
  }

  /** A place in the memory of the rank at a place of the node. */
  #of(owner: number, ref: TensorRef): TensorRef {
    if (owner === this.ownership.place) return ref;
    return { ...ref, rank: this.ownership.ranks[owner] as number };
  }

  #barrier(name: string): CollectiveStage {
    return { name, mode: "collective", group: this.ownership.group, call: { kind: "barrier" } };
  }
}
