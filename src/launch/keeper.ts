/**
 * Keeps the state of a run durable before anything is done that another launcher must know of: a
 * worker that is started, a generation that is formed. All else is done at once.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { StateStore } from "../durable/index.ts";
import type { LockstepError } from "../errors.ts";
import type { Action } from "../membership/index.ts";
import { isFenced } from "./agents.ts";
import { atMost } from "./at-most.ts";
import { OVER, type StoredRun, toStore } from "./stored.ts";

export interface KeeperOptions {
  readonly store: StateStore;
  /** What is to be stored now. */
  readonly run: () => StoredRun;
  readonly notice: (text: string) => void;
  /** Another launcher leads the run by now. */
  readonly fenced: (error: LockstepError) => void;
  /** A write that takes longer than this is told. Default: 30 s. */
  readonly longMs?: number;
}

/** After this time a write that failed is tried again. */
const AGAIN_MS = 1_000;
const LAST_MS = 5_000;
const LONG_MS = 30_000;

export class Keeper {
  readonly #options: KeeperOptions;
  readonly #waiting: (() => void)[] = [];
  #isWriting = false;
  #isOver = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Does what was decided, in order, as soon as the state that it belongs to may be relied on. */
  follow(actions: readonly Action[], act: () => void): void {
    const has = (...kinds: readonly string[]) => actions.some(({ kind }) => kinds.includes(kind));
    // The end of a run does not wait for a disk that does not answer.
    if (has("end") || (this.#waiting.length === 0 && !has("start", "admit", "form"))) return act();
    this.#waiting.push(act);
    if (!this.#isWriting) void this.#write();
  }

  /** Stores the present state when it can, for what changed without any action. */
  note(): void {
    this.#waiting.push(() => undefined);
    if (!this.#isWriting) void this.#write();
  }

  /** Nothing more is done; the run has ended, unless another launcher leads it. */
  async close(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    // Without it, the next launcher finds that no worker is left.
    await atMost(
      LAST_MS,
      this.#options.store.write(OVER).catch(() => undefined),
    );
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    const { longMs = LONG_MS } = this.#options;
    let told = "";
    while (this.#waiting.length > 0 && !this.#isOver) {
      const count = this.#waiting.length;
      try {
        const written = this.#options.store.write(toStore(this.#options.run()));
        if ((await atMost(longMs, written)) === "late") {
          this.#options.notice(stalledText(this.#options.store.place, longMs));
          await written;
        }
      } catch (error) {
        if (isFenced(error)) {
          this.#isOver = true;
          return this.#options.fenced(error);
        }
        const text = error instanceof Error ? error.message : String(error);
        const what = `The state of the run cannot be stored, so nobody joins it now. ${text}`;
        if (text !== told) this.#options.notice(what);
        told = text;
        await delay(AGAIN_MS);
        continue;
      }
      // One after the other: what is decided meanwhile comes after them.
      for (let left = count; left > 0 && !this.#isOver; left--) {
        const [act] = this.#waiting;
        act?.();
        this.#waiting.shift();
      }
    }
    this.#isWriting = false;
  }
}

function stalledText(place: string, ms: number): string {
  return (
    `The state of the run has not been stored in "${place}" for ${ms / 1000} s, because its disk or ` +
    "server does not answer. Until it does, nobody joins the run, and the run stands still when it " +
    "loses a worker."
  );
}
