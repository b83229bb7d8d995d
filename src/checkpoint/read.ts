/** Reads checkpoints: checks that shards are whole, and reads ranges of tensors out of them. */
import { stat } from "node:fs/promises";
import { LockstepError } from "../errors.ts";
import { FilePool, fileError } from "../files/index.ts";
import { byteLength, type Tensor } from "../tensor/index.ts";
import { readsFor, type StoredTensor } from "./assemble.ts";
import type { Manifest } from "./manifest.ts";
import { newSha256 } from "./sha256.ts";

/** What can be wrong with a shard. */
export const FAULTS = ["missing", "another size", "other bytes", "not readable"] as const;
export type Fault = (typeof FAULTS)[number];

/** The shards and tensors of a checkpoint, as far as they are needed to read it. */
export interface Source {
  /** The names of the shards in messages. */
  readonly files: readonly string[];
  /** Whether all nodes read the same shards, and not each its own. */
  readonly isEverywhere: boolean;
  /** Of all shards together, as they were written. */
  readonly byteLength: number;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /**
   * Reads a shard whole and compares it with what was written.
   * @throws STORE when that cannot be said now
   */
  check(shard: number): Promise<Fault | undefined>;
  /**
   * Fills `into` with the bytes of a shard from `start` on.
   * @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED, STORE
   */
  read(shard: number, start: number, into: Uint8Array): Promise<void>;
  /** Closes what reading has opened. */
  close(): Promise<void>;
}

/** The shards of a checkpoint where they lie. */
export interface ShardFiles extends Pick<Source, "files" | "isEverywhere" | "read" | "close"> {
  /** Returns undefined for one that is not there. */
  sizeOf(shard: number): Promise<number | undefined>;
  /** How a shard is read whole: so many bytes at once, so many times at the same time. */
  readonly whole: { readonly chunkBytes: number; readonly atOnce: number };
}

/** Files of this machine. */
export function filesOf(files: readonly string[]): ShardFiles {
  const pool = new FilePool();
  const path = (shard: number) => files[shard] as string;
  return {
    files,
    isEverywhere: false,
    whole: { chunkBytes: 2 ** 20, atOnce: 2 },
    sizeOf: (shard) => sizeOf(path(shard)),
    read: (shard, start, into) => pool.read(path(shard), start, into),
    close: () => pool.close(),
  };
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (thrown) {
    const error = fileError(thrown, "read", path);
    if (error instanceof LockstepError && error.code === "FILE_NOT_FOUND") return undefined;
    throw error;
  }
}

export function sourceOf(shards: ShardFiles, manifest: Manifest): Source {
  const { files, isEverywhere, read, close } = shards;
  return {
    files,
    isEverywhere,
    byteLength: manifest.shards.reduce((sum, shard) => sum + shard.byteLength, 0),
    tensors: new Map(Object.entries(manifest.tensors)),
    read,
    close,
    check: async (shard) => {
      const { byteLength, sha256 } = manifest.shards[shard] as Manifest["shards"][number];
      try {
        const found = await shards.sizeOf(shard);
        if (found === undefined) return "missing";
        if (found !== byteLength) return "another size";
        return (await sha256Of(shards, shard, byteLength)) === sha256 ? undefined : "other bytes";
      } catch (error) {
        if (error instanceof LockstepError && error.code === "STORE") throw error;
        return "not readable";
      } finally {
        await close();
      }
    },
  };
}

/** Reads ahead while a chunk is hashed. */
async function sha256Of(files: ShardFiles, shard: number, byteLength: number): Promise<string> {
  const { chunkBytes, atOnce } = files.whole;
  const hash = newSha256();
  const chunks: Promise<Uint8Array>[] = [];
  const begin = (at: number) => {
    if (at >= byteLength) return;
    const chunk = new Uint8Array(Math.min(chunkBytes, byteLength - at));
    const reading = files.read(shard, at, chunk).then(() => chunk);
    reading.catch(() => undefined); // it is reported when its turn comes
    chunks.push(reading);
  };
  for (let ahead = 0; ahead < atOnce; ahead++) begin(ahead * chunkBytes);
  for (let at = 0; at < byteLength; at += chunkBytes) {
    const chunk = await chunks.shift();
    begin(at + atOnce * chunkBytes);
    await hash.add(chunk as Uint8Array);
  }
  return hash.digest();
}

/** A sentence about a shard, without its full stop. */
export function describeFault(path: string, fault: Fault): string {
  switch (fault) {
    case "missing":
      return `its shard "${path}" is missing`;
    case "another size":
      return `its shard "${path}" is longer or shorter than it was written`;
    case "other bytes":
      return `its shard "${path}" is not as it was written`;
    case "not readable":
      return `its shard "${path}" cannot be read`;
  }
}

/**
 * Fills `into` with the bytes of a tensor from byte `from` on. The tensor has them.
 * @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED, STORE
 */
export async function readRangeOf(
  source: Source,
  name: string,
  from: number,
  into: Uint8Array,
): Promise<void> {
  const tensor = source.tensors.get(name) as StoredTensor;
  for (const read of readsFor(tensor, from, from + into.byteLength)) {
    const place = into.subarray(read.into, read.into + read.byteLength);
    await source.read(read.shard, read.start, place);
  }
}

/** Reads a whole tensor. @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED, STORE */
export async function readTensor(source: Source, name: string): Promise<Tensor> {
  const { dtype, shape } = source.tensors.get(name) as StoredTensor;
  const bytes = new Uint8Array(byteLength({ dtype, shape }));
  await readRangeOf(source, name, 0, bytes);
  return { dtype, shape, bytes };
}
