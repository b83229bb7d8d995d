/**
 * The waits of one rank: each looks at shared memory until its condition holds. A rank on a thread
 * of its own spins a little and then sleeps on its doorbell. A rank that shares an event loop with
 * others looks again and again.
 */
import { availableParallelism } from "node:os";
import type { LockstepError } from "../../errors.ts";
import { deadlinePassed } from "../../net/index.ts";
import type { Waiting } from "../transport.ts";

/** `block` sleeps, for a thread of its own. `poll` never blocks the event loop. */
export type WaitMode = "block" | "poll";

export interface Wait {
  readonly ready: () => boolean;
  /** Returns the rank that is waited for, as this group numbers it, and as errors name it. */
  readonly from: () => number;
  readonly peer: () => number;
  readonly doing: string;
  readonly deadlineMs: number;
  /** Whether to look a few times before anything else starts; for waits that come alone. */
  readonly alone: boolean;
  /** Whether the event loop has other work meanwhile. */
  readonly isBusy?: (() => boolean) | undefined;
}

export interface WaitsOptions {
  readonly mode: WaitMode;
  /** The number of looks before the core is offered to other threads; few if ranks share a core. */
  readonly spins: number;
  /** The number of looks after that, each with an offer of the core, before sleeping. */
  readonly yields: number;
  /** Lets other threads run on this core. */
  readonly yield: () => void;
  /** Moves the data of all waits as far as possible. */
  readonly pump: () => void;
  /** Sleeps until the doorbell rings or `ready` holds, for at most `timeoutMs`. */
  readonly sleep: (ready: () => boolean, timeoutMs: number) => void;
  /** Fails the group if a peer has failed, died, or left although it is wanted. */
  readonly checkPeers: (isWanted: (peer: number) => boolean) => void;
  readonly fail: (error: LockstepError) => void;
}

interface Pending extends Wait {
  readonly since: number;
  /** The time waited, without the time in which this process itself was stopped. */
  waitedMs: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The milliseconds for which the event loop may be blocked; the second value holds while it has
 * other waits to serve.
 */
const SLICE_MS = 20;
const BUSY_SLICE_MS = 0.1;
const CHECK_MS = 40;
/**
 * The most milliseconds that count between two checks, because this process may have been stopped
 * meanwhile.
 */
const MAX_GAP_MS = 1000;
const IDLE_POLLS = 50;

/** About ten microseconds of spinning, if each rank has a core. Then other threads get the core. */
const MANY_SPINS = 2000;
const FEW_SPINS = 4;
const YIELDS = 100;
const MANY_YIELDS = 400;

/** How long the waits of a group of this size look before they sleep. */
export function patienceOf(size: number): Pick<WaitsOptions, "spins" | "yields"> {
  return size <= availableParallelism()
    ? { spins: MANY_SPINS, yields: YIELDS }
    : { spins: FEW_SPINS, yields: MANY_YIELDS };
}

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

  /** Ends every wait with an error. */
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
    if (this.#pending.size === 0) return; // the group may be closed, and its memory gone
    if (this.#options.mode === "poll") {
      const done = this.#look();
      this.#idle = done ? 0 : this.#idle + 1;
      // A finished wait needs no peer any more, and the peer may have left meanwhile.
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

  /** Ends the waits whose condition holds. Returns whether there were any. */
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

  /**
   * Whether a wait for this rank remains after another look, because its last message may have come
   * just before it left.
   */
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
