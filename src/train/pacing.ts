/** How fast each rank is, and when that is reason enough to share micro-batches in another way. */
import { type Decision, decideShares, type Range } from "../program/index.ts";

/** Steps between two decisions. */
const WINDOW = 6;
/** Of them do not count: what is heard is of the step before, and the first step after a change binds and reads anew. */
const UNCOUNTED = 2;

/**
 * Every rank writes before a step its own pace in the step before; the sum over ranks brings all of them to all, beside
 * the gradients. So all ranks have the same numbers and take the same decision.
 */
export class Pacing {
  readonly #rank: number;
  readonly #microBatches: number;
  #ranges: readonly Range[];
  /** Seconds a micro-batch, of all ranks, by step. */
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

  /** What this rank adds to the sum over ranks: its own pace at its place. */
  told(): readonly number[] {
    return this.#ranges.map((_, rank) => (rank === this.#rank ? this.#own : 0));
  }

  /** Takes the sum over ranks: the paces of all. */
  hear(paces: readonly number[]): void {
    this.#heard.push([...paces]);
  }

  /** Something once in some steps, and only where it changes something. */
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
