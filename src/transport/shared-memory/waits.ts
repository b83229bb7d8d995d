/**
 * The waits of one rank: each looks at shared memory until what it waits for is there. On a thread of its own a rank
 * spins a little and then sleeps on its doorbell; beside others on an event loop it looks again and again.
 */
import type { LockstepError } from "../../errors.ts";
import { deadlinePassed } from "../failure.ts";
import type { Waiting } from "../transport.ts";

/** `block`: sleeps, for a thread of its own. `poll`: never blocks the event loop. */
export type WaitMode = "block" | "poll";

export interface Wait {
  readonly ready: () => boolean;
  /** The rank that is waited for. */
  readonly peer: () => number;
  readonly doing: string;
  readonly deadlineMs: number;
  /** Whether to look some times before anything else is begun: for waits that come alone. */
  readonly alone: boolean;
}

export interface WaitsOptions {
  readonly mode: WaitMode;
  /** Looks before the core is offered to others; few where ranks share a core. */
  readonly spins: number;
  /** Looks after that, each with an offer, before sleeping. */
  readonly yields: number;
  /** Lets others run on this core. */
  readonly yield: () => void;
  /** Moves what can be moved, for all waits. */
  readonly pump: () => void;
  /** Sleeps until the doorbell rings, unless `ready` before; at most so long. */
  readonly sleep: (ready: () => boolean, timeoutMs: number) => void;
  /** Looks for failed and dead peers; fails the group if there are any. */
  readonly checkPeers: () => void;
  readonly fail: (error: LockstepError) => void;
}

interface Pending extends Wait {
  readonly deadlineAt: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const SLICE_MS = 20;
const CHECK_MS = 40;
const IDLE_POLLS = 50;

export class Waits {
  readonly #options: WaitsOptions;
  readonly #pending = new Set<Pending>();
  #driving = false;
  #checkedAt = 0;
  #idle = 0;

  constructor(options: WaitsOptions) {
    this.#options = options;
  }

  wait(wait: Wait): Waiting {
    if (wait.ready()) return undefined;
    const { mode } = this.#options;
    if (mode === "block" && wait.alone && this.#spin(wait.ready)) return undefined;
    return new Promise((resolve, reject) => {
      const deadlineAt = performance.now() + wait.deadlineMs;
      this.#pending.add({ ...wait, deadlineAt, resolve, reject });
      this.#schedule(mode === "block");
    });
  }

  /** Whether a wait needs something of this rank that is not there yet. */
  awaits(rank: number): boolean {
    for (const { peer, ready } of this.#pending) if (peer() === rank && !ready()) return true;
    return false;
  }

  /** Ends every wait. */
  failAll(error: LockstepError): void {
    for (const { reject } of this.#pending) reject(error);
    this.#pending.clear();
  }

  #schedule(soon: boolean): void {
    if (this.#driving || this.#pending.size === 0) return;
    this.#driving = true;
    const drive = () => {
      this.#driving = false;
      this.#drive();
    };
    if (soon) queueMicrotask(drive);
    else if (this.#options.mode === "poll" && this.#idle > IDLE_POLLS) setTimeout(drive, 1);
    else setImmediate(drive);
  }

  #drive(): void {
    if (this.#options.mode === "poll") {
      const done = this.#look();
      this.#idle = done ? 0 : this.#idle + 1;
      this.#check();
      this.#schedule(false);
      return;
    }
    const end = performance.now() + SLICE_MS;
    while (this.#pending.size > 0) {
      if (this.#look()) return this.#schedule(true);
      this.#check();
      if (this.#spin(() => this.#look())) return this.#schedule(true);
      const left = end - performance.now();
      if (left <= 0) break;
      this.#options.sleep(() => this.#anyReady(), left);
    }
    this.#schedule(false);
  }

  #spin(ready: () => boolean): boolean {
    const { spins, yields } = this.#options;
    for (let spin = 0; spin < spins; spin++) if (ready()) return true;
    for (let count = 0; count < yields; count++) {
      this.#options.yield();
      if (ready()) return true;
      if (this.#pending.size > 0) this.#options.pump();
    }
    return false;
  }

  /** Ends the waits that are over; returns whether there were any. */
  #look(): boolean {
    this.#options.pump();
    let any = false;
    for (const pending of this.#pending) {
      if (!pending.ready()) continue;
      this.#pending.delete(pending);
      pending.resolve();
      any = true;
    }
    return any;
  }

  #anyReady(): boolean {
    this.#options.pump();
    for (const { ready } of this.#pending) if (ready()) return true;
    return false;
  }

  #check(): void {
    const now = performance.now();
    if (now - this.#checkedAt < CHECK_MS) return;
    this.#checkedAt = now;
    this.#options.checkPeers();
    for (const { deadlineAt, peer, doing, deadlineMs } of this.#pending) {
      if (now < deadlineAt) continue;
      this.#options.fail(deadlinePassed(peer(), doing, deadlineMs));
      return;
    }
  }
}
