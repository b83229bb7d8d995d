/**
 * Replicas of a sharded step: each has a range of the micro-batches, and sums it by itself. What of the one tree lies across ranges is summed
 * at the end of a step, between the ranks that look after the same part in each replica.
 */
import { gradientBuffer } from "./buffers.ts";
import type { Layout } from "./layout.ts";
import type { Piece } from "./pieces.ts";
import type { CollectiveStage, Extent, ProgramBuilder, RunStage } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { evenRanges, type Levels, planLevels, type Range } from "./shares.ts";
import { accumulatorsOf, planWaves, type Wave, type Waves } from "./waves.ts";

export interface ReplicaSumsOptions {
  readonly microBatches: number;
  readonly replicas: number;
  /** Which of them this rank is in. */
  readonly replica: number;
  /** The name of the group of the ranks of one place in all replicas. */
  readonly group: string;
  /** Micro-batches of a replica that run at once. */
  readonly perWave: number;
  readonly reproducible: boolean;
}

export class ReplicaSums {
  /** The micro-batches of each replica. */
  readonly ranges: readonly Range[];
  readonly waves: readonly Wave[];
  readonly #program: ProgramBuilder;
  readonly #levels: Levels;
  /** How many buffers of gradients there are. */
  readonly #accumulators: number;
  readonly #reducer: Reducer | undefined;

  /** @param layout of gradients */
  constructor(program: ProgramBuilder, layout: Layout, options: ReplicaSumsOptions) {
    const { microBatches, replicas, replica, group, perWave, reproducible } = options;
    this.#program = program;
    this.ranges = evenRanges(microBatches, replicas);
    const members = this.ranges.map((_, index) => [index]);
    this.#levels = planLevels(this.ranges, members, { reproducible });
    const planned = members.map((_, index): Waves => {
      const own = this.#levels.ranks.contributions.filter(({ rank }) => rank === index);
      return planWaves(own, perWave);
    });
    const { waves, totals } = planned[replica] as Waves;
    this.waves = waves;
    // All ranks of a run have the same shared buffers.
    this.#accumulators = Math.max(...planned.map((own) => accumulatorsOf(own.waves)));
    const bufferOf = (slot: number) => gradientBuffer(totals[slot] as number);
    const names = { all: group, inner: group, outer: group };
    const reducing = { rank: replica, names, levels: this.#levels, bufferOf };
    this.#reducer = replicas === 1 ? undefined : new Reducer(program, layout, reducing);
    for (let index = 0; index < this.#accumulators; index++) {
      const name = this.#program.buffer(gradientBuffer(index), layout.byteLength);
      if (replicas > 1) this.#program.shared.add(name);
    }
  }

  /** Of gradients only what this rank looks after is ever touched, and takes memory. */
  touches(own: readonly Extent[]): void {
    for (let index = 0; index < this.#accumulators; index++) {
      this.#program.touches(gradientBuffer(index), own);
    }
  }

  /** After the last wave: the sums over all replicas, in the place of this one's. */
  stages(pieces: readonly Piece[], what: string): (RunStage | CollectiveStage)[] {
    if (this.#reducer === undefined || pieces.length === 0) return [];
    return this.#reducer.stages(pieces, `${what}, of all replicas`);
  }
}
