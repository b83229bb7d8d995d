/**
 * The waits of one rank: each looks at shared memory until what it waits for is there. On a thread of its own a rank
 * spins a little and then sleeps on its doorbell; beside others on an event loop it looks again and again.
 */
import type { LockstepError } from "../../errors.ts";
import { deadlinePassed } from "../../net/index.ts";
import type { Waiting } from "../transport.ts";

/** `block`: sleeps, for a thread of its own. `poll`: never blocks the event loop. */
export type WaitMode = "block" | "poll";

export interface Wait {
  readonly ready: () => boolean;
  /** The rank that is waited for, as this group numbers it, and as errors name it. */
  readonly from: () => number;
  readonly peer: () => number;
  readonly doing: string;
  readonly deadlineMs: number;
  /** Whether to look some times before anything else is begun: for waits that come alone. */
  readonly alone: boolean;
  /** Whether the event loop has more to do meanwhile. */
  readonly isBusy?: (() => boolean) | undefined;
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
  /** Looks for failed and dead peers, and for those that have left although they are wanted; fails the group if there are any. */
  readonly checkPeers: (isWanted: (peer: number) => boolean) => void;
  readonly fail: (error: LockstepError) => void;
}

interface Pending extends Wait {
  readonly since: number;
  /** Without what passed while this process itself was stopped. */
  waitedMs: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** How long the event loop may be blocked, and how long where it has other waits to serve. */
const SLICE_MS = 20;
const BUSY_SLICE_MS = 0.1;
const CHECK_MS = 40;
/** Between two checks at most so much counts: this process may have been stopped meanwhile. */
const MAX_GAP_MS = 1000;
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
      this.#pending.add({ ...wait, since: performance.now(), waitedMs: 0, resolve, reject });
      this.#schedule(mode === "block");
    });
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
      // What is over needs no peer any more: it may have left meanwhile.
      if (this.#pending.size > 0) this.#check();
      this.#schedule(false);
      return;
    }
    const end = performance.now() + (this.#isBusy() ? BUSY_SLICE_MS : SLICE_MS);
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

  #isBusy(): boolean {
    for (const { isBusy } of this.#pending) if (isBusy?.() === true) return true;
    return false;
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

  /** Whether a wait for this rank is not over, after another look: its last words may have come just before it left. */
  #isWanted(peer: number): boolean {
    this.#options.pump();
    for (const { from, ready } of this.#pending) if (from() === peer && !ready()) return true;
    return false;
  }

  #check(): void {
    const now = performance.now();
    const before = this.#checkedAt;
    if (now - before < CHECK_MS) return;
    this.#checkedAt = now;
    this.#options.checkPeers((peer) => this.#isWanted(peer));
    for (const pending of this.#pending) {
      const { since, peer, doing, deadlineMs } = pending;
      pending.waitedMs += Math.min(MAX_GAP_MS, now - Math.max(before, since));
      if (pending.waitedMs < deadlineMs) continue;
      this.#options.fail(deadlinePassed(peer(), doing, deadlineMs));
      return;
    }
  }
}
