/** A clock that only a test moves, what is to happen at which time, and random numbers. */

interface Entry {
  readonly at: number;
  readonly run: () => void;
}

export class SimulatedClock {
  now = 1e6;
  /** Ascending by time. */
  readonly #queue: Entry[] = [];
  #random: number;

  constructor(seed: number) {
    this.#random = seed;
  }

  /** @returns a number below `limit`; the same ones for the same seed */
  random(limit: number): number {
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
    return (this.#random / 2 ** 32) * limit;
  }

  after(ms: number, run: () => void): void {
    const at = this.now + ms;
    let index = this.#queue.length;
    while (index > 0 && (this.#queue[index - 1] as Entry).at > at) index--;
    this.#queue.splice(index, 0, { at, run });
  }

  every(ms: number, run: () => void): void {
    this.after(ms, () => {
      run();
      this.every(ms, run);
    });
  }

  /** When the next of all that was planned is due. */
  get nextAt(): number {
    return this.#queue[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  /** Goes on to what is due next, and does it. */
  runNext(): void {
    const next = this.#queue.shift();
    if (next === undefined) return;
    this.now = Math.max(this.now, next.at);
    next.run();
  }
}
