/** Whether this very process stood still for a while: Ctrl-Z, a laptop that was closed. Others seem silent to it then. */
const TICK_MS = 1000;
const GAP_MS = 5000;
/** A gap explains what is found within so long after it. */
const RECENT_MS = 15_000;

export class OwnClock {
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;
  #tickedAt: number;
  #gap = { milliseconds: 0, endedAt: Number.NEGATIVE_INFINITY };

  /** `now`: milliseconds of a clock that goes on while the machine sleeps. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#tickedAt = now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** How long this process stood still a moment ago, in milliseconds; 0 if it did not. */
  get stoodStillMs(): number {
    this.#tick();
    const { milliseconds, endedAt } = this.#gap;
    return this.#now() - endedAt < RECENT_MS ? milliseconds : 0;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = this.#now();
    const milliseconds = now - this.#tickedAt;
    this.#tickedAt = now;
    if (milliseconds > GAP_MS) this.#gap = { milliseconds, endedAt: now };
  }
}
