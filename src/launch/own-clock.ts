/**
 * Finds out whether this process itself was paused for a while (Ctrl-Z, a laptop that was closed).
 * Other workers then seem silent although they are not.
 */
import { uptime } from "node:os";

const TICK_MS = 1000;
const GAP_MS = 5000;
/** For this long after a pause, the pause explains the failures that are noticed. */
const RECENT_MS = 15_000;

export class OwnClock {
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;
  #tickedAt: number;
  #gap = { milliseconds: 0, endedAt: Number.NEGATIVE_INFINITY };

  /**
   * @param now milliseconds of a clock that continues while the machine sleeps, and that nobody
   *   sets: a time of day that is put forward must not look like a pause
   */
  constructor(now: () => number = () => 1000 * uptime()) {
    this.#now = now;
    this.#tickedAt = now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** How long this process was paused recently, in milliseconds; 0 if it was not. */
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
