/** Where checkpoints are kept: what a run asks of any place for them. */
import type { Manifest, Shard } from "./manifest.ts";
import type { Source } from "./read.ts";

/** The pieces of a file, in order. Each is valid until the next is asked for. */
export type Pieces = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface ShardBytes {
  readonly byteLength: number;
  readonly pieces: Pieces;
}

/** Who keeps a place for checkpoints. */
export interface Holder {
  /** What all processes of a run on several machines have alike. */
  readonly run?: string | undefined;
  readonly host: string;
  readonly pid: number;
  /** The same for processes that see each other by their pid. */
  readonly space: string;
  /** In ISO 8601. */
  readonly since: string;
}

export interface HoldOptions {
  /** Aborting it ends the watch of another owner, and throws its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Is given a sentence that says for whom it waits, before an owner is watched. */
  readonly onWatch?: ((text: string) => void) | undefined;
}

export interface Hold {
  /** It throws nothing. */
  release(): Promise<void>;
}

/**
 * A checkpoint begins as a draft, which readers do not see. The writers write one shard each; how
 * each has ended is told by names in the draft, so that it needs no message to a process that is
 * training meanwhile. Publishing a draft makes it the checkpoint of its step, whole or not at all.
 *
 * Methods throw CHECKPOINT for a checkpoint that is damaged, DISK_FULL, and IO_FAILED or STORE when
 * the place cannot be used.
 */
export interface CheckpointStore {
  /** Its name in messages. */
  readonly place: string;
  /** Whether the workers of all nodes reach it; otherwise those of the leader's node do. */
  readonly isEverywhere: boolean;
  /** Whether checkpoints take space on the disk of the run's folder. */
  readonly isOnDisk: boolean;

  /**
   * Takes the place for one run, before anything is written there. From then on `publish` throws
   * RUN_LOCKED if another has taken it.
   * @throws RUN_LOCKED naming the owner; STORE; the reason of the signal
   */
  hold(by: Holder, options?: HoldOptions): Promise<Hold>;

  /** The name of a checkpoint in messages. */
  pathOf(step: number): string;
  /** The steps of the checkpoints that were published, ascending. */
  steps(): Promise<number[]>;
  manifest(step: number): Promise<Manifest>;
  source(step: number, manifest: Manifest): Source;

  /** Makes an empty draft for these writers. Returns its name. */
  begin(step: number, writers: readonly number[]): Promise<string>;
  /** Writes the shard of a rank. It blocks the event loop for less than a few milliseconds at once. */
  write(draft: string, rank: number, shard: ShardBytes): Promise<void>;
  /**
   * Waits until all writers have ended. `signal` ends the wait: a writer that is lost will not end.
   * Also throws the error of a writer, and the reason of `signal`.
   */
  gather(draft: string, writers: readonly number[], signal?: AbortSignal): Promise<Shard[]>;
  /** Makes a draft the checkpoint of its step, in place of one that is there. Returns its path. */
  publish(draft: string, manifest: Manifest): Promise<string>;
  /** Removes a draft as far as it can, and throws nothing. */
  discard(draft: string): Promise<void>;
  /** Removes what processes that were killed have left. */
  removeDrafts(): Promise<void>;

  /** A small text beside the checkpoints; undefined where there is none. */
  readText(name: string): Promise<string | undefined>;
  writeText(name: string, text: string): Promise<void>;
  removeText(name: string): Promise<void>;

  remove(step: number): Promise<void>;
  /** Keeps a checkpoint that is not resumed under a name that no checkpoint has. */
  setAside(step: number): Promise<void>;
  /** Puts all checkpoints away before another run begins, unless they go with the run's folder. */
  putAway(): Promise<void>;
}
