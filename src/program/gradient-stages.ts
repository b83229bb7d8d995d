/**
 * What a rank does until all ranks have the sums that a step needs: micro-batches in waves, their
 * sums along the tree, and the sum over ranks. If the forward and backward pass is cut into pieces,
 * sums over ranks travel beside the rest of the last wave.
 */
import type { Accumulation, TreeSum } from "./accumulate.ts";
import { gradientBuffer } from "./buffers.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type Task,
  type TaskStage,
} from "./program.ts";
import { sumStage } from "./runs.ts";
import type { Span } from "./spans.ts";

/** The lane of sums over ranks. */
const REDUCE = "reduce";

/** What is summed together over ranks. */
export interface Bucket {
  readonly name: string;
  readonly spans: readonly Span[];
  /** The piece of computation after which it is ready. */
  readonly after: number;
  /** The sum over ranks; nothing for one rank alone. */
  readonly overRanks: readonly (RunStage | CollectiveStage)[];
}

export interface GradientStagesOptions {
  readonly program: ProgramBuilder;
  /** The whole flat gradient. */
  readonly spans: readonly Span[];
  readonly sums: Accumulation;
  /** The number of micro-batches that may run at once. */
  readonly lanes: number;
  readonly buckets: readonly Bucket[];
  /** The names of the pieces of computation: one if the graph is whole. */
  readonly pieces: readonly string[];
}

/** The run of a piece, for a micro-batch (counted from the rank's first) in a lane. */
export type RunOf = (piece: number, microBatch: number, lane: number) => Run;

type Wave = Accumulation["waves"][number];

export class GradientStages {
  readonly #options: GradientStagesOptions;
  /** There are few pairs of buffers, which are used again and again. */
  readonly #additions = new Map<string, RunStage>();

  constructor(options: GradientStagesOptions) {
    this.#options = options;
  }

  stages(runOf: RunOf): Stage[] {
    const { sums, pieces, buckets, spans } = this.#options;
    return sums.waves.flatMap((wave): Stage[] => {
      const after = sums.sums.filter((sum) => sum.after === wave.last);
      const isLast = wave === sums.waves.at(-1);
      if (isLast && pieces.length > 1) return [this.#overlapped(wave, after, runOf)];
      return [
        ...this.computed(wave, runOf),
        ...after.map((sum) => this.#addition(sum, "all", spans)),
        ...(isLast ? buckets.flatMap(({ overRanks }) => overRanks) : []),
      ];
    });
  }

  /** Some micro-batches at once, without anything of other ranks. */
  computed({ first, last }: Wave, runOf: RunOf): RunStage[] {
    const { lanes, pieces } = this.#options;
    return pieces.map((piece, index) => {
      const runs = Array.from({ length: last - first + 1 }, (_, lane) =>
        runOf(index, first + lane, lane),
      );
      // Without parallel micro-batches, one run has all threads.
      const mode = pieces.length === 1 && lanes === 1 ? "ordered" : "parallel";
      return { name: `${piece} ${first} to ${last}`, runs, mode };
    });
  }

  #overlapped(wave: Wave, sums: readonly TreeSum[], runOf: RunOf): TaskStage {
    const tasks: Task[] = [];
    let before: readonly number[] = [];
    for (const [piece, stage] of this.computed(wave, runOf).entries()) {
      tasks.push({ name: stage.name, lane: COMPUTE, after: before, work: [stage] });
      before = [tasks.length - 1];
      for (const [index, { name, spans, after, overRanks }] of this.#options.buckets.entries()) {
        if (after !== piece) continue;
        const own = spans.length === 0 ? [] : sums;
        const additions = own.map((sum) => this.#addition(sum, index, spans));
        tasks.push({ name, lane: REDUCE, after: before, work: [...additions, ...overRanks] });
      }
    }
    return { name: `gradients ${wave.first} to ${wave.last}`, mode: "tasks", tasks };
  }

  /** One addition of the tree, over all of the gradient or over a bucket of it. */
  #addition(sum: TreeSum, of: number | "all", spans: readonly Span[]): RunStage {
    const buffers = { from: gradientBuffer(sum.from), into: gradientBuffer(sum.into) };
    const key = `${buffers.from} ${buffers.into} ${of}`;
    const stage = this.#additions.get(key) ?? sumStage(this.#options.program, buffers, spans);
    this.#additions.set(key, stage);
    return stage;
  }
}
