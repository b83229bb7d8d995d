/**
 * One worker's part in writing a checkpoint: it writes its shard out of its memory, or out of a copy
 * beside training. It knows which write is under way, and no group.
 */
import { freemem } from "node:os";
import { setImmediate as turn } from "node:timers/promises";
import { type CheckpointStore, layOutShard, type Piece } from "../checkpoint/index.ts";
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { allocateMemory } from "../memory/index.ts";
import type { StateParts } from "../train/index.ts";

/** The milliseconds for which workers that leave in order are waited for: they finish their shards. */
const LEAVERS_MS = 60_000;

/** The part of the free memory that copies of the state may take. */
const PART_OF_FREE = 0.5;

/** Returns the bytes that this process may still take: those of its container, or of the machine. */
export function freeMemory(): number {
  return process.availableMemory?.() ?? freemem();
}

/** Whether there is room for a copy of what all workers of this machine write. */
export function fitsBeside(bytes: number, free: number): boolean {
  return bytes <= free * PART_OF_FREE;
}

export class Saver {
  /** The step of the last checkpoint that was written, or that is being written. */
  saved: number | undefined;
  /** Whether the workers have saved together for the last time. */
  hasLeft = false;
  hasToldNoRoom = false;
  hasToldWait = false;
  /** The ranks of a group that reach the place for checkpoints, as far as it was found out. */
  readonly reached = new WeakMap<Group, readonly number[]>();
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #lost = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(saved?: number) {
    this.saved = saved;
  }

  /**
   * Lets a write go on beside training. It handles its own errors; any other is a bug, which the
   * next `idle` throws.
   */
  begin(write: () => Promise<void>): void {
    this.#writing = write()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        clearTimeout(this.#timer);
        this.#writing = undefined;
      });
  }

  /**
   * Begins the wait for the other writers of a checkpoint. The signal outlives the group, because
   * workers that change their group in order go on writing; `lose` aborts it.
   */
  expect(): AbortSignal {
    this.#lost = new AbortController();
    return this.#lost.signal;
  }

  /** Whether a checkpoint of this step is being written, and nobody who writes it may be lost. */
  isWriting(step: number): boolean {
    return this.saved === step && this.#writing !== undefined && !this.#lost.signal.aborted;
  }

  /** Ends the wait for other writers: any of them may be lost. */
  lose(reason: unknown): void {
    this.#lost.abort(reason);
  }

  /** Ends the wait for other writers after a time in which those that leave have written. */
  loseLater(): void {
    if (this.#writing === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const text = `A worker that left did not finish its shard within ${LEAVERS_MS / 1000} s.`;
      this.lose(new LockstepError("PEER_LOST", text));
    }, LEAVERS_MS).unref();
  }

  /**
   * Waits for the write that is under way. Returns the milliseconds that this took.
   * @param signal of the group: a lost worker does not write
   */
  async idle(signal?: AbortSignal): Promise<number> {
    const began = performance.now();
    const lose = () => this.lose(signal?.reason);
    signal?.addEventListener("abort", lose, { once: true });
    if (signal?.aborted === true) lose();
    await this.#writing;
    signal?.removeEventListener("abort", lose);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
    return performance.now() - began;
  }
}

/** A shard that is ready to be written. */
export interface ReadyShard {
  /** Whether training may go on while it is written. */
  readonly isCopy: boolean;
  write(place: CheckpointStore, draft: string, rank: number): Promise<void>;
}

/** @param beside whether it is to be a copy; it is none when there is no memory for it */
export async function readyShard(
  parts: StateParts,
  pieces: readonly Piece[],
  beside: boolean,
): Promise<ReadyShard> {
  if (!beside) return shardInPlace(parts, pieces);
  try {
    return await shardInCopy(parts, pieces);
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== "OUT_OF_MEMORY") throw error;
    return shardInPlace(parts, pieces);
  }
}

/** The shard is read out of the memory of ranks while it is written, before their next step. */
function shardInPlace(parts: StateParts, pieces: readonly Piece[]): ReadyShard {
  const { byteLength } = layOutShard(pieces, typesOf(parts));
  return {
    isCopy: false,
    write: (place, draft, rank) =>
      place.write(draft, rank, { byteLength, pieces: read(parts, pieces) }),
  };
}

/**
 * Copies what the shard will hold, so that it can be written while training goes on.
 * @throws OUT_OF_MEMORY
 */
async function shardInCopy(parts: StateParts, pieces: readonly Piece[]): Promise<ReadyShard> {
  const { byteLength } = layOutShard(pieces, typesOf(parts));
  const memory = allocateMemory(byteLength);
  try {
    let at = 0;
    for await (const piece of read(parts, pieces)) {
      memory.view(at, piece.byteLength).set(piece);
      at += piece.byteLength;
      await turn();
    }
  } catch (error) {
    memory.close();
    throw error;
  }
  return {
    isCopy: true,
    write: async (place, draft, rank) => {
      try {
        await place.write(draft, rank, { byteLength, pieces: viewsOf(memory) });
      } finally {
        memory.close();
      }
    },
  };
}

/** A view takes no memory, and within one nothing waits for the rest. */
const VIEW_BYTES = 2 ** 30;

function* viewsOf(memory: ReturnType<typeof allocateMemory>): Generator<Uint8Array> {
  for (let at = 0; at < memory.byteLength; at += VIEW_BYTES) {
    yield memory.view(at, Math.min(VIEW_BYTES, memory.byteLength - at));
  }
}

async function* read(parts: StateParts, pieces: readonly Piece[]): AsyncGenerator<Uint8Array> {
  const { header, pieces: placed } = layOutShard(pieces, typesOf(parts));
  yield header;
  for (const { name, from, to } of placed) yield* parts.read(name, from, to);
}

function typesOf(parts: StateParts): Parameters<typeof layOutShard>[1] {
  return new Map(parts.list().map((tensor) => [tensor.name, tensor]));
}
