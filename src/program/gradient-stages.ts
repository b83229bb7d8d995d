/**
 * What a rank does until all ranks have the sums that a step needs: micro-batches in waves, their sums along the tree, and the
 * sum over ranks. Where the forward and backward pass is cut into pieces, sums over ranks travel beside the rest of the last wave.
 */
import type { Accumulation, TreeSum } from "./accumulate.ts";
import type { Layout } from "./layout.ts";
import type { Piece } from "./pieces.ts";
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
import type { Reducer } from "./reduce.ts";
import { sumStage } from "./runs.ts";

/** The lane of sums over ranks. */
const REDUCE = "reduce";

/** What is summed together over ranks. */
export interface Bucket {
  readonly name: string;
  readonly pieces: readonly Piece[];
  /** The piece of computation after which it is ready. */
  readonly after: number;
}

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
  readonly buckets: readonly Bucket[];
  /** Names of the pieces of computation: one where the graph is whole. */
  readonly pieces: readonly string[];
}

/** The run of a piece of computation, for a micro-batch (counted from the rank's first) in a lane. */
export type RunOf = (piece: number, microBatch: number, lane: number) => Run;

export class GradientStages {
  readonly #options: GradientStagesOptions;
  /** Few pairs of buffers, used again and again. */
  readonly #additions = new Map<string, RunStage>();
  readonly #overRanks: readonly (readonly (RunStage | CollectiveStage)[])[];

  constructor(options: GradientStagesOptions) {
    this.#options = options;
    const { buckets, reducer } = options;
    this.#overRanks = buckets.map(({ name, pieces }) =>
      reducer === undefined || pieces.length === 0 ? [] : reducer.stages(pieces, name),
    );
  }

  stages(runOf: RunOf): Stage[] {
    const { sums, pieces } = this.#options;
    return sums.waves.flatMap((wave): Stage[] => {
      const after = sums.sums.filter((sum) => sum.after === wave.last);
      const isLast = wave === sums.waves.at(-1);
      if (isLast && pieces.length > 1) return [this.#overlapped(wave, after, runOf)];
      return [
        ...this.computed(wave, runOf),
        ...after.map((sum) => this.#addition(sum)),
        ...(isLast ? this.#overRanks.flat() : []),
      ];
    });
  }

  /** Some micro-batches at once, without anything of other ranks. */
  computed(wave: { readonly first: number; readonly last: number }, runOf: RunOf): RunStage[] {
    return this.#options.pieces.map((_, piece) => this.#piece(piece, wave, runOf));
  }

  #overlapped(
    wave: { readonly first: number; readonly last: number },
    after: readonly TreeSum[],
    runOf: RunOf,
  ): TaskStage {
    const tasks: Task[] = [];
    let before: number | undefined;
    for (const piece of this.#options.pieces.keys()) {
      const stage = this.#piece(piece, wave, runOf);
      const own = tasks.length;
      const waits = before === undefined ? [] : [before];
      tasks.push({ name: stage.name, lane: COMPUTE, after: waits, work: [stage] });
      before = own;
      for (const [index, bucket] of this.#options.buckets.entries()) {
        if (bucket.after !== piece) continue;
        const sums =
          bucket.pieces.length === 0 ? [] : after.map((sum) => this.#addition(sum, index));
        const work = [...sums, ...(this.#overRanks[index] ?? [])];
        tasks.push({ name: bucket.name, lane: REDUCE, after: [own], work });
      }
    }
    return { name: `gradients ${wave.first} to ${wave.last}`, mode: "tasks", tasks };
  }

  #piece(
    piece: number,
    { first, last }: { readonly first: number; readonly last: number },
    runOf: RunOf,
  ): RunStage {
    const { lanes, pieces } = this.#options;
    const runs = Array.from({ length: last - first + 1 }, (_, lane) =>
      runOf(piece, first + lane, lane),
    );
    const name = `${pieces[piece]} ${first} to ${last}`;
    // Without parallel micro-batches, one run has all threads.
    return { name, runs, mode: pieces.length === 1 && lanes === 1 ? "ordered" : "parallel" };
  }

  /** One addition of the tree, over all of the gradient or over a bucket of it. */
  #addition(sum: TreeSum, index?: number): RunStage {
    const { program, layout, bufferOf, buckets } = this.#options;
    const buffers = { from: bufferOf(sum.from), into: bufferOf(sum.into) };
    const key = `${buffers.from} ${buffers.into} ${index ?? "all"}`;
    const pieces = index === undefined ? undefined : buckets[index]?.pieces;
    const stage = this.#additions.get(key) ?? sumStage(program, layout, buffers, pieces);
    this.#additions.set(key, stage);
    return stage;
  }
}
