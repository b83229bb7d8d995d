/** Whether a worker makes progress, which its beats tell to those who lead the run. */
import type { RunCounts } from "../engine/index.ts";
import { type FileWatch, watchFiles } from "../files/index.ts";
import type { Progress } from "../protocol/index.ts";
import type { WaitCounts } from "../transport/index.ts";

/** The most that one interval adds, because the process may have been stopped meanwhile. */
const MOST_GAP_MS = 1_000;

export class ProgressMeter {
  /** The waits for other workers, which transports count here. */
  readonly waits: WaitCounts = { begun: 0, ended: 0 };
  readonly #files: FileWatch = watchFiles();
  readonly #runs: Readonly<RunCounts>;
  /** The counts of the last look. */
  #seen = "";
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
    const isWaiting = waits.begun > waits.ended;
    const busy = begun > ended ? "computing" : isWaiting ? "waiting" : undefined;
    const found = busy === undefined ? this.#files.oldest() : undefined;
    // A checkpoint that is written beside a run or a wait says nothing about those.
    const files = busy === undefined ? this.#files.changes : 0;
    const seen = [begun, ended, waits.begun, waits.ended, files].join();
    if (seen === this.#seen) this.#stillMs += Math.min(now - this.#lookedAt, MOST_GAP_MS);
    else this.#stillMs = 0;
    [this.#seen, this.#lookedAt] = [seen, now];
    const doing = busy ?? found?.doing ?? "other";
    return { doing, stillMs: this.#stillMs, file: found?.path };
  }

  close(): void {
    this.#files.close();
  }
}
