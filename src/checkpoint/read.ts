/** Reads checkpoints: checks that shards are whole, and reads ranges of tensors out of them. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "../errors.ts";
import { FilePool, openRange } from "../files/index.ts";
import { byteLength, type Tensor } from "../tensor/index.ts";
import { readsFor, type StoredTensor } from "./assemble.ts";
import type { Manifest } from "./manifest.ts";

/** Bytes that are hashed at once. */
const CHUNK_BYTES = 2 ** 20;

/** What can be wrong with a shard. */
export const FAULTS = ["missing", "another size", "other bytes", "not readable"] as const;
export type Fault = (typeof FAULTS)[number];

/** The shards and tensors of a checkpoint, as far as they are needed to read it. */
export interface Source {
  /** The files, by the index of the shard. */
  readonly files: readonly string[];
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Reads a shard whole and compares it with what was written. */
  check(shard: number): Promise<Fault | undefined>;
}

export function sourceOf(checkpoint: string, manifest: Manifest): Source {
  const files = manifest.shards.map(({ file }) => join(checkpoint, file));
  return {
    files,
    tensors: new Map(Object.entries(manifest.tensors)),
    check: async (shard) => {
      const { byteLength, sha256 } = manifest.shards[shard] as Manifest["shards"][number];
      const path = files[shard] as string;
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) return "missing";
      if (found.size !== byteLength) return "another size";
      try {
        return (await sha256OfFile(path)) === sha256 ? undefined : "other bytes";
      } catch {
        return "not readable";
      }
    },
  };
}

/** Yields between chunks, so that a worker goes on answering its launcher. */
async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  const file = await openRange(path);
  try {
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (let at = 0; at < file.byteLength; at += CHUNK_BYTES) {
      const chunk = buffer.subarray(0, Math.min(CHUNK_BYTES, file.byteLength - at));
      await file.read(at, chunk);
      hash.update(chunk);
    }
  } finally {
    await file.close();
  }
  return hash.digest("hex");
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

/** @param path of the checkpoint; `what` is the end of a sentence */
export function damaged(path: string, what: string): LockstepError {
  return new LockstepError("CHECKPOINT", `The checkpoint "${path}" is damaged: ${what}.`, {
    hint: "Use an older checkpoint, or start again with --anew. The disk or the copy may be faulty.",
    fields: { path },
  });
}

/** Reads ranges of tensors; keeps the files open until it is closed. */
export class TensorReader {
  readonly #source: Source;
  readonly #pool = new FilePool();

  constructor(source: Source) {
    this.#source = source;
  }

  /**
   * Fills `into` with the bytes of a tensor from byte `from` on. The tensor has them.
   * @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED
   */
  async read(name: string, from: number, into: Uint8Array): Promise<void> {
    const tensor = this.#source.tensors.get(name) as StoredTensor;
    for (const read of readsFor(tensor, from, from + into.byteLength)) {
      const place = into.subarray(read.into, read.into + read.byteLength);
      await this.#pool.read(this.#source.files[read.shard] as string, read.start, place);
    }
  }

  close(): Promise<void> {
    return this.#pool.close();
  }
}

/** Reads a whole tensor. @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED */
export async function readTensor(source: Source, name: string): Promise<Tensor> {
  const { dtype, shape } = source.tensors.get(name) as StoredTensor;
  const bytes = new Uint8Array(byteLength({ dtype, shape }));
  const reader = new TensorReader(source);
  try {
    await reader.read(name, 0, bytes);
  } finally {
    await reader.close();
  }
  return { dtype, shape, bytes };
}
