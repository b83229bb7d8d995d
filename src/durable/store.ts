/**
 * What the leader of a run keeps beyond its own end: its last state, and who may write the next. A
 * store has one owner at a time. Each owner has a term, a number above those of all owners before,
 * and from the moment at which the next one has its own, the old one's writes are refused.
 */
import { LockstepError } from "../errors.ts";

export interface StateStore {
  /** Where it lies, for people. */
  readonly place: string;
  readonly term: number;
  /** The state that was written last, by any owner: plain JSON. Undefined in a new store. */
  readonly last: unknown;
  /**
   * Resolves when this state, or a later one that was given meanwhile, is durable. States are plain
   * JSON.
   * @throws FENCED when another owner has the store, now and from then on; DISK_FULL, IO_FAILED
   */
  write(state: unknown): Promise<void>;
  /** Gives the store up, so that the next owner need not wait. */
  close(): Promise<void>;
}

/** @param other the term of the coordinator that has the store now; undefined if none has it */
export function fenced(place: string, term: number, other: number | undefined): LockstepError {
  const isTaken = other !== undefined;
  const why = isTaken
    ? `another one, of term ${other}, has taken over.`
    : "it could not renew its place there in time, and has lost it.";
  const text = `This coordinator (term ${term}) no longer leads the run whose state is in "${place}": ${why}`;
  return new LockstepError("FENCED", text, {
    hint: isTaken
      ? "Nothing is lost: the run goes on with the other coordinator. End this one."
      : "Start the same command again: the workers go on meanwhile.",
    fields: { place, term, ...(isTaken ? { other } : {}) },
  });
}

/**
 * Writes one state at a time. Of those that are given meanwhile only the last is written, because it
 * replaces the others.
 */
export class LatestWriter {
  readonly #put: (text: string) => Promise<void>;
  #next: { text: string; readonly done: Promise<void> } | undefined;
  #busy: Promise<void> = Promise.resolve();

  constructor(put: (text: string) => Promise<void>) {
    this.#put = put;
  }

  write(state: unknown): Promise<void> {
    const text = JSON.stringify(state);
    if (this.#next !== undefined) {
      this.#next.text = text;
      return this.#next.done;
    }
    const done = this.#busy.then(() => {
      const { text: latest } = this.#next as { text: string };
      this.#next = undefined;
      return this.#put(latest);
    });
    this.#next = { text, done };
    this.#busy = done.catch(() => undefined);
    return done;
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    while (this.#next !== undefined) await this.#busy;
    await this.#busy;
  }
}
