/** Messages that are under way at once: each begins before the ones before it have ended. */

/** A wait that is undefined if there is nothing to wait for. */
export type Waiting = Promise<void> | undefined;

/** The most between two ranks. A large one waits for its receiver to be there. */
const MOST = 8;

export class UnderWay {
  readonly #waits: Promise<void>[] = [];

  /** Adds one that has begun. Waits while there are too many. */
  async add(waiting: Waiting): Promise<void> {
    if (waiting === undefined) return;
    waiting.catch(() => undefined);
    this.#waits.push(waiting);
    if (this.#waits.length >= MOST) await this.#waits.shift();
  }

  /** Waits for all to end, also after an error, so that none still uses memory that is closed. */
  async end(): Promise<void> {
    const ends = await Promise.allSettled(this.#waits.splice(0));
    const failed = ends.find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
  }
}
