/**
 * What a rank does until all ranks have the sum of gradients: micro-batches in waves, their sums along the tree, and the
 * sum over ranks. Where a network lies between ranks, the last wave is cut: buckets of gradients travel while the
 * rest is computed.
 */
import type { Accumulation, TreeSum } from "./accumulate.ts";
import { type CutGradient, isSegmentTask, segmentRun } from "./cut.ts";
import { sumStage } from "./gradient.ts";
import type { Layout } from "./layout.ts";
import type { Task } from "./partition.ts";
import { type Piece, wholePieces } from "./pieces.ts";
import type {
  CollectiveStage,
  ProgramBuilder,
  Run,
  RunStage,
  Stage,
  TaskStage,
} from "./program.ts";
import type { Reducer } from "./reduce.ts";

type SimpleStage = RunStage | CollectiveStage;

export interface GradientStagesOptions {
  readonly program: ProgramBuilder;
  /** Of the flat gradient. */
  readonly layout: Layout;
  readonly sums: Accumulation;
  /** Micro-batches that may run at once. */
  readonly lanes: number;
  readonly bufferOf: (index: number) => string;
  /** Undefined for one rank alone. */
  readonly reducer: Reducer | undefined;
  /** What is summed over ranks together, in order. */
  readonly buckets: readonly (readonly Piece[])[];
  /** Undefined: the gradient graph runs whole. */
  readonly cut: CutGradient | undefined;
}

export class GradientStages {
  readonly #options: GradientStagesOptions;
  /** Few pairs of buffers, used again and again. */
  readonly #additions = new Map<string, RunStage>();
  readonly #overRanks: readonly (readonly SimpleStage[])[];

  constructor(options: GradientStagesOptions) {
    this.#options = options;
    const { buckets, reducer, cut, program, lanes, sums } = options;
    this.#overRanks = buckets.map((pieces, at) => {
      const what = buckets.length === 1 ? "gradients" : `bucket ${at + 1} of ${buckets.length}`;
      return reducer === undefined || pieces.length === 0 ? [] : reducer.stages(pieces, what);
    });
    if (cut === undefined) return;
    const width = Math.min(
      lanes,
      Math.max(...sums.waves.map(({ first, last }) => last - first + 1)),
    );
    for (let lane = 0; lane < width; lane++) program.buffer(arenaOf(lane), cut.memory.private);
    for (const task of cut.program.tasks.filter(isSegmentTask)) {
      program.graph(graphOf(task), 1, () => task.graph);
    }
  }

  /** @param gradients the run of each micro-batch of this rank, whole */
  stages(gradients: readonly Run[]): Stage[] {
    const { sums } = this.#options;
    return sums.waves.flatMap(({ first, last }): Stage[] => {
      const runs = gradients.slice(first, last + 1);
      const name = `gradients ${first} to ${last}`;
      const after = sums.sums.filter((sum) => sum.after === last);
      const isLast = last === gradients.length - 1;
      if (isLast && this.#options.cut !== undefined) return [this.#overlapped(name, runs, after)];
      return [
        ...this.computed(name, runs),
        ...after.map((sum) => this.#addition(sum)),
        ...(isLast ? this.#overRanks.flat() : []),
      ];
    });
  }

  /** Some micro-batches at once, without anything of other ranks. */
  computed(name: string, runs: readonly Run[]): RunStage[] {
    const { cut, lanes } = this.#options;
    if (cut !== undefined) {
      const segments = cut.program.tasks.filter(isSegmentTask);
      return segments.map((task) => this.#segment(cut, task, runs, `${name}, ${task.name}`));
    }
    // Without parallel micro-batches, one run has all threads.
    return [{ name, runs, mode: lanes === 1 ? "ordered" : "parallel" }];
  }

  #overlapped(name: string, runs: readonly Run[], after: readonly TreeSum[]): TaskStage {
    const cut = this.#options.cut as CutGradient;
    const work = new Map<Task, readonly SimpleStage[]>();
    let bucket = 0;
    for (const task of cut.program.tasks) {
      if (isSegmentTask(task)) {
        work.set(task, [this.#segment(cut, task, runs, task.name)]);
        continue;
      }
      const pieces = this.#options.buckets[bucket] ?? [];
      const sums = pieces.length === 0 ? [] : after.map((sum) => this.#addition(sum, bucket));
      work.set(task, [...sums, ...(this.#overRanks[bucket] ?? [])]);
      bucket += 1;
    }
    return { name, mode: "tasks", tasks: cut.program.tasks, work };
  }

  #segment(
    cut: CutGradient,
    task: Parameters<typeof segmentRun>[1],
    runs: readonly Run[],
    name: string,
  ): RunStage {
    const own = runs.map((run, lane) => segmentRun(cut, task, run, graphOf(task), arenaOf(lane)));
    return { name, runs: own, mode: "parallel" };
  }

  /** One addition of the tree, over all of the gradient or over a bucket of it. */
  #addition(sum: TreeSum, bucket?: number): RunStage {
    const { program, layout, bufferOf, buckets } = this.#options;
    const buffers = { from: bufferOf(sum.from), into: bufferOf(sum.into) };
    const key = `${buffers.from} ${buffers.into} ${bucket ?? "all"}`;
    const pieces = bucket === undefined ? wholePieces(layout) : buckets[bucket];
    const stage = this.#additions.get(key) ?? sumStage(program, layout, buffers, pieces);
    this.#additions.set(key, stage);
    return stage;
  }
}

function graphOf(task: Task): string {
  return `gradient, ${task.name}`;
}

function arenaOf(lane: number): string {
  return `activations.${lane}`;
}
