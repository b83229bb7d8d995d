/** Whether a worker makes progress, which its beats tell to those who lead the run. */
import type { RunCounts } from "../engine/index.ts";
import type { Progress } from "../protocol/index.ts";
import type { WaitCounts } from "../transport/index.ts";

/** The most that one interval adds, because the process may have been stopped meanwhile. */
const MOST_GAP_MS = 1_000;

export class ProgressMeter {
  /** The waits for other workers, which transports count here. */
  readonly waits: WaitCounts = { begun: 0, ended: 0 };
  readonly #runs: Readonly<RunCounts>;
  #seen = -1;
  #lookedAt = 0;
  #stillMs = 0;

  /** @param runs those of the worker's device */
  constructor(runs: Readonly<RunCounts>) {
    this.#runs = runs;
  }

  /** @param now milliseconds of a clock that only goes on */
  look(now: number): Progress {
    const { begun, ended } = this.#runs;
    const { waits } = this;
    const seen = begun + ended + waits.begun + waits.ended;
    if (seen === this.#seen) this.#stillMs += Math.min(now - this.#lookedAt, MOST_GAP_MS);
    else this.#stillMs = 0;
    [this.#seen, this.#lookedAt] = [seen, now];
    const isWaiting = waits.begun > waits.ended;
    const doing = begun > ended ? "computing" : isWaiting ? "waiting" : "other";
    return { doing, stillMs: this.#stillMs };
  }
}
