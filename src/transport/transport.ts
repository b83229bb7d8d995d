/**
 * How the ranks of one generation reach each other. A transport moves bytes and knows no tensor, no
 * gradient and no collective. Implementations: `shared-memory` (one node), `tcp` (several nodes),
 * `nodes` (shared memory within each node and TCP between them), `simulated` (one process, for
 * tests).
 *
 * A group lives for one generation. When anything goes wrong on any rank (a peer vanishes, a wait
 * passes its deadline, someone aborts) the whole group has failed: every wait on every rank ends
 * with an error that names the rank at fault, and so does every later call. A run continues with a
 * new group.
 */
import type { Memory } from "../memory/index.ts";

/**
 * A wait. It is undefined if there is nothing to wait for, so that such a wait costs no turn of the
 * event loop.
 */
export type Waiting = Promise<void> | undefined;

/**
 * Starts all, then waits for all. If one throws at once, the rejections of the others are still
 * handled.
 */
export function waitForAll(starts: readonly (() => Waiting)[]): Waiting {
  const waits: Promise<void>[] = [];
  try {
    for (const start of starts) {
      const waiting = start();
      if (waiting !== undefined) waits.push(waiting);
    }
  } catch (error) {
    for (const wait of waits) wait.catch(() => undefined);
    throw error;
  }
  if (waits.length <= 1) return waits[0];
  return Promise.all(waits).then(() => undefined);
}

export interface MessageOptions {
  /** Messages of one channel keep their order between two ranks. Default: 0. */
  readonly channel?: number;
  /** How long this wait may take. Default: the group's deadline. */
  readonly deadlineMs?: number;
  /**
   * Whether the event loop has other waits to serve. While it has, a wait may block the thread only
   * briefly.
   */
  readonly isBusy?: () => boolean;
}

export type WaitOptions = Pick<MessageOptions, "deadlineMs" | "isBusy">;

export interface BarrierOptions extends WaitOptions {
  /** `node`: waits for the ranks of this node only. Default: for all ranks of the group. */
  readonly within?: "node";
}

export interface Transport {
  /** `shared-memory`, `tcp`, `simulated` or `shared-memory and tcp`, for reports. */
  readonly kind: string;
  readonly rank: number;
  /** The number of ranks. */
  readonly size: number;
  readonly generation: number;
  /**
   * The ranks of each node, each list ascending. Ranks of one node can map each other's memory
   * through `share`. Nodes are in the order of their first ranks, and the same on all ranks.
   */
  readonly nodes: readonly (readonly number[])[];
  /** Aborted when the group fails; its reason is the error of every wait. */
  readonly signal: AbortSignal;

  /**
   * Ends when `bytes` may be written again, which does not mean that they were received. Throws or
   * rejects with PEER_LOST, DEADLINE, ABORTED or PROTOCOL; so do `receive` and `barrier`.
   */
  send(to: number, bytes: Uint8Array, options?: MessageOptions): Waiting;
  /** Fills `into` with one message of exactly its length; another length is a PROTOCOL error. */
  receive(from: number, into: Uint8Array, options?: MessageOptions): Waiting;
  /**
   * Ends when every rank has called it. What the others wrote to shared memory before is then seen
   * here.
   */
  barrier(options?: BarrierOptions): Waiting;

  /**
   * Shares memory with the other ranks of this node, which read and write it in place. Undefined if
   * memory cannot be shared. All ranks call it in the same order, each with named memory of its
   * own, of any size.
   */
  readonly share: ((memory: Memory) => Promise<SharedRegion>) | undefined;

  /**
   * Creates a group of some of these ranks, in the given order. All members call it, in the same
   * order, and each closes its group.
   */
  subgroup(ranks: readonly number[]): Promise<Transport>;

  /** Fails the group, here and on all ranks, at any moment. */
  abort(reason: unknown): void;
  /**
   * Leaves the group and releases everything. Peers that still wait for this rank get PEER_LOST.
   */
  close(): Promise<void>;
}

export interface SharedRegion {
  /**
   * The memory of each rank; undefined for ranks of other nodes. This rank's entry is the memory
   * that was given. Do not close these.
   */
  readonly memories: readonly (Memory | undefined)[];
  /** Unmaps the peers' memory. */
  close(): void;
}

export interface GroupOptions {
  readonly rank: number;
  readonly size: number;
  /** Default: 0. */
  readonly generation?: number;
  /** Milliseconds that a wait may take. Default: 30 s. */
  readonly deadlineMs?: number;
  /** Aborting it aborts the group. */
  readonly signal?: AbortSignal;
}

export const DEFAULT_DEADLINE_MS = 30_000;
