/** Measures the pace of each rank, and decides when to share out the micro-batches anew. */
import { type Decision, decideShares, type Range } from "../program/index.ts";

/** The number of steps between two decisions. */
const WINDOW = 6;
/**
 * The steps of a window that do not count: paces arrive one step late, and the first step after a
 * change binds and reads anew.
 */
const UNCOUNTED = 2;

/**
 * Before each step every rank writes its pace in the step before. The sum over ranks, which travels
 * beside the gradients, brings all paces to all ranks, so all take the same decision.
 */
export class Pacing {
  readonly #rank: number;
  readonly #microBatches: number;
  #ranges: readonly Range[];
  /** The seconds that each rank needed for a micro-batch, by step. */
  #heard: number[][] = [];
  #own = 0;

  constructor(rank: number, ranges: readonly Range[], microBatches: number) {
    this.#rank = rank;
    this.#ranges = ranges;
    this.#microBatches = microBatches;
  }

  measured(seconds: number, microBatches: number): void {
    this.#own = seconds / microBatches;
  }

  /** Returns what this rank adds to the sum over ranks: its own pace at its own index. */
  told(): readonly number[] {
    return this.#ranges.map((_, rank) => (rank === this.#rank ? this.#own : 0));
  }

  /** Takes the paces of all ranks, which are the sum over ranks. */
  hear(paces: readonly number[]): void {
    this.#heard.push([...paces]);
  }

  /** Returns a new sharing of the micro-batches once in WINDOW steps, if it would be faster. */
  decide(): Decision | undefined {
    if (this.#heard.length < WINDOW) return undefined;
    const counted = this.#heard.slice(UNCOUNTED);
    this.#heard = [];
    const speeds = this.#ranges.map(
      (_, rank) => 1 / median(counted.map((paces) => paces[rank] ?? 0)),
    );
    const decision = decideShares(speeds, this.#microBatches, this.#ranges);
    if (decision.reason === undefined) return undefined;
    this.#ranges = decision.ranges;
    return decision;
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
