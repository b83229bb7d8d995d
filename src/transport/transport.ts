/**
 * How the ranks of one generation reach each other. A transport moves bytes and knows no tensor, no gradient and no
 * collective. Implementations: `shared-memory` (one machine), `tcp` (several), `machines` (both, each where it is best),
 * `simulated` (one process, for tests).
 *
 * A group lives for one generation. When anything goes wrong on any rank (a peer vanishes, a wait passes its deadline,
 * someone aborts) the whole group has failed: every wait on every rank ends with an error that names the rank at
 * fault, and so does every later call. What comes next is a new group.
 */
import type { Memory } from "../memory/index.ts";

/** A wait. Undefined: nothing to wait for, it is done. So waits that are over at once cost no turn of the event loop. */
export type Waiting = Promise<void> | undefined;

/** Starts all, then waits for all. Where one throws at once, the others' failures are not left unheard. */
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
  /** Messages between two ranks keep their order within a channel; a whole number from 0, 0 unless told. */
  readonly channel?: number;
  /** Of a receive: told of parts that are there before the rest is, in any order, each once. Not all transports do. */
  readonly onPiece?: (byteOffset: number, byteLength: number) => void;
  /** How long this wait may take; the group's own unless told. */
  readonly deadlineMs?: number;
  /** True while the event loop has other waits to serve: then none that blocks its thread may last. */
  readonly isBusy?: () => boolean;
}

export type WaitOptions = Pick<MessageOptions, "deadlineMs" | "isBusy">;

export interface BarrierOptions extends WaitOptions {
  /** Whom it holds up: all ranks, unless told only those of this machine. */
  readonly within?: "machine";
}

export interface Transport {
  /** `shared-memory`, `tcp`, `simulated`: for reports. */
  readonly kind: string;
  readonly rank: number;
  /** The number of ranks. */
  readonly size: number;
  readonly generation: number;
  /**
   * The ranks by machine, each list ascending: those of one machine can map each other's memory through `share`. Machines
   * are in the order of their first ranks, the same on all ranks.
   */
  readonly machines: readonly (readonly number[])[];
  /** Aborted when the group has failed; its reason is the error that every wait got. */
  readonly signal: AbortSignal;

  /**
   * Over when `bytes` may be written again, which does not mean that they were received. Throws or rejects with PEER_LOST,
   * DEADLINE, ABORTED or PROTOCOL; so do all others.
   */
  send(to: number, bytes: Uint8Array, options?: MessageOptions): Waiting;
  /** Fills `into` with one message of exactly its length; another length is a PROTOCOL error. */
  receive(from: number, into: Uint8Array, options?: MessageOptions): Waiting;
  /** Over when every rank has come here; what others wrote before is then seen. */
  barrier(options?: BarrierOptions): Waiting;

  /**
   * Memory that the peers of this machine read and write in place; undefined where none can. All ranks call it in the
   * same order, with named memory of any size, each its own.
   */
  readonly share: ((memory: Memory) => Promise<SharedRegion>) | undefined;

  /** A group of some of these ranks, in the order given. Its members call it, in the same order, and close it. */
  subgroup(ranks: readonly number[]): Promise<Transport>;

  /** Fails the group, here and on all ranks, at any moment. */
  abort(reason: unknown): void;
  /** Leaves the group and releases everything. Peers that still wait for this rank get PEER_LOST. */
  close(): Promise<void>;
}

export interface SharedRegion {
  /** By rank, undefined for ranks of other machines; one's own is the very memory given. Do not close these. */
  readonly memories: readonly (Memory | undefined)[];
  /** Lets go of the peers' memory. */
  close(): void;
}

export interface GroupOptions {
  readonly rank: number;
  readonly size: number;
  /** 0 unless told. */
  readonly generation?: number;
  /** How long a wait may take; 30 s unless told. */
  readonly deadlineMs?: number;
  /** Aborting it aborts the group. */
  readonly signal?: AbortSignal;
}

export const DEFAULT_DEADLINE_MS = 30_000;
