/**
 * Measures the pace of each rank, and decides when to share out the micro-batches anew. All ranks
 * hear the same paces, so all take the same decisions in the same steps.
 *
 * A change needs evidence that it wins more than it costs. In each step the sharing that the steps
 * before suggest is tried on the paces of this step, which it has not seen (so noise speaks neither
 * for it nor against it); what it would have saved is added up, and when that reaches the price of a
 * change, it is made. Who pays rent until it adds up to the price of buying never pays more than
 * twice the least (the ski-rental rule; Karlin et al. 1988), and a sum that starts again from zero is
 * Page's CUSUM test (1954).
 */

import { decideShares, LEAST_GAIN, type Range, savingOf } from "../program/index.ts";
import type { TooSlow } from "./step-types.ts";

/**
 * The price of a change: so many steps it must have saved, counting only what it saves beyond
 * `LEAST_GAIN` of each.
 */
const PRICE = 1.15;
/** One step proves no more than this, so that a change needs evidence of several. */
const MOST_SAVING = 0.35;
/** After the first change and the one that takes it back, each further one costs twice as much … */
const FREE_CHANGES = 1;
const MOST_DOUBLINGS = 5;
/** … until this many steps without a change, which make the next one cheaper by half. */
const CALM_STEPS = 300;
/** A rank's present pace is the median of this many steps. */
const WINDOW = 5;
/**
 * After a change so many steps do not count: paces arrive one step late, and the first step after a
 * change binds and reads anew.
 */
const UNCOUNTED = 2;
/** A rank is told of when it has had less than this part of the others' speed for so many steps. */
const FAR_BELOW = 0.5;
const FAR_STEPS = 20;

export interface PacingDecision {
  readonly ranges: readonly Range[];
  /** Whether the ranges differ from those before. */
  readonly isNew: boolean;
  /** A sentence or two for people. */
  readonly reason: string;
  /** The ranks that are slower than the run allows, each once. */
  readonly tooSlow: readonly TooSlow[];
}

/**
 * Before each step every rank writes its pace in the step before. The sum over ranks, which travels
 * beside the gradients, brings all paces to all ranks.
 */
export class Pacing {
  readonly #rank: number;
  readonly #microBatches: number;
  #ranges: readonly Range[];
  /** The seconds that each rank needed for a micro-batch, by step: the last ones that count. */
  #heard: (readonly number[])[] = [];
  #uncounted = UNCOUNTED;
  /** What a change would have saved so far, in steps. */
  #saved = 0;
  #changes = 0;
  #calm = 0;
  /** For how many steps each rank has been far below the others; infinite when that was told. */
  readonly #below: number[];
  readonly #excludeBelow: number;
  /** The same for what the run allows. */
  readonly #tooSlow: number[];
  #own = 0;

  constructor(
    rank: number,
    ranges: readonly Range[],
    microBatches: number,
    excludeBelow: number = 0,
  ) {
    this.#rank = rank;
    this.#ranges = ranges;
    this.#microBatches = microBatches;
    this.#excludeBelow = excludeBelow;
    this.#below = ranges.map(() => 0);
    this.#tooSlow = ranges.map(() => 0);
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
    if (this.#uncounted > 0) {
      this.#uncounted -= 1;
      return;
    }
    if (!paces.every((pace) => Number.isFinite(pace) && pace > 0)) return;
    const { ranges, reason } = decideShares(this.#speeds(), this.#microBatches, this.#ranges);
    const saving = reason === undefined ? 0 : savingOf(ranges, this.#ranges, paces);
    this.#saved = Math.max(0, this.#saved + Math.min(MOST_SAVING, saving) - LEAST_GAIN);
    this.#heard = [...this.#heard, [...paces]].slice(-WINDOW);
    this.#calm += 1;
    if (this.#calm % CALM_STEPS === 0) this.#changes = Math.max(0, this.#changes - 1);
    for (const [rank, share] of this.#shares().entries()) {
      count(this.#below, rank, share < FAR_BELOW);
      count(this.#tooSlow, rank, share < this.#excludeBelow);
    }
  }

  /** Returns a new sharing of the micro-batches when it is worth it, and whatever is to be told. */
  decide(): PacingDecision | undefined {
    const [slow, tooSlow] = [this.#tellSlow(), this.#findTooSlow()];
    const change = this.#change();
    const reason = [...(change === undefined ? [] : [change.reason]), ...slow].join(" ");
    if (change !== undefined) return { ...change, reason, tooSlow };
    if (slow.length + tooSlow.length === 0) return undefined;
    return { ranges: this.#ranges, isNew: false, reason, tooSlow };
  }

  #change(): Omit<PacingDecision, "tooSlow"> | undefined {
    const doublings = Math.min(MOST_DOUBLINGS, Math.max(0, this.#changes - FREE_CHANGES));
    if (this.#saved < PRICE * 2 ** doublings) return undefined;
    const { ranges, reason } = decideShares(this.#speeds(), this.#microBatches, this.#ranges);
    if (reason === undefined) return undefined;
    this.#ranges = ranges;
    [this.#heard, this.#uncounted, this.#saved] = [[], UNCOUNTED, 0];
    [this.#changes, this.#calm] = [this.#changes + 1, 0];
    return { ranges, isNew: true, reason };
  }

  /** Says once of each rank that it is far below the rest. */
  #tellSlow(): string[] {
    const shares = this.#shares();
    return this.#below.flatMap((steps, rank) => {
      if (steps < FAR_STEPS || steps === Number.POSITIVE_INFINITY) return [];
      this.#below[rank] = Number.POSITIVE_INFINITY;
      const share = Math.round(100 * (shares[rank] ?? 0));
      return [
        `Worker ${rank} has had ${share}% of the speed of the others for ${FAR_STEPS} steps: ` +
          "look at what else runs on its machine.",
      ];
    });
  }

  #findTooSlow(): TooSlow[] {
    const shares = this.#shares();
    return this.#tooSlow.flatMap((steps, rank) => {
      if (steps < FAR_STEPS || steps === Number.POSITIVE_INFINITY) return [];
      this.#tooSlow[rank] = Number.POSITIVE_INFINITY;
      const [share, least] = [shares[rank] ?? 0, this.#excludeBelow].map((one) =>
        Math.round(100 * one),
      );
      const why = `it has had ${share}% of the speed of the others for ${FAR_STEPS} steps, and the run excludes workers below ${least}%`;
      return [{ rank, why }];
    });
  }

  /** The present speed of each rank, in micro-batches a second; not finite when nothing counts. */
  #speeds(): number[] {
    return this.#ranges.map((_, rank) => 1 / median(this.#heard.map((paces) => paces[rank] ?? 0)));
  }

  /** The speed of each rank as a part of the median of the others. */
  #shares(): number[] {
    const speeds = this.#speeds();
    return speeds.map((speed, rank) => speed / median(speeds.filter((_, other) => other !== rank)));
  }
}

/** Counts a step in a row, unless it was told already. */
function count(steps: number[], rank: number, isSlow: boolean): void {
  const before = steps[rank] as number;
  if (before < Number.POSITIVE_INFINITY) steps[rank] = isSlow ? before + 1 : 0;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
