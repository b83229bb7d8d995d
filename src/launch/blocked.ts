/**
 * Workers whose event loop stands still because a call to the system waits for a disk. They send no
 * beats, so whoever sees their processes says it for them.
 */
import type { Progress } from "../protocol/index.ts";

/** The state of a process in `/proc` whose call to the system cannot be interrupted. */
const IN_CALL = "D";

export class Blocked {
  readonly #since = new Map<number, number>();

  /** The worker has sent a beat, or has ended. */
  clear(worker: number): void {
    this.#since.delete(worker);
  }

  /**
   * Looks at a worker that has sent no beat since the last look.
   * @param state the state of its process, and `fileOf` the file that its call is about
   * @returns its progress; undefined unless it was in a call at the look before, too
   */
  look(
    worker: number,
    {
      state,
      fileOf,
      now,
    }: { state: string | undefined; fileOf: () => string | undefined; now: number },
  ): Progress | undefined {
    const since = this.#since.get(worker);
    if (state !== IN_CALL) {
      this.clear(worker);
      return undefined;
    }
    if (since === undefined) {
      this.#since.set(worker, now);
      return undefined;
    }
    return { doing: "blocked", stillMs: now - since, file: fileOf() };
  }
}
