/** Writes a shard and hashes it on the way. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { setImmediate as turn } from "node:timers/promises";
import type { Pieces } from "./store.ts";

/** Bytes that are hashed at once: well under a millisecond. */
const CHUNK_BYTES = 2 ** 20;

/** Writes into a file that is there, and flushes it. Returns the SHA-256. */
export async function writeHashed(path: string, pieces: Pieces): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "r+");
  try {
    for await (const piece of pieces) {
      let writing: Promise<void> | undefined;
      for (let at = 0; at < piece.byteLength; at += CHUNK_BYTES) {
        const chunk = piece.subarray(at, at + CHUNK_BYTES);
        // One chunk is hashed while the one before is written.
        hash.update(chunk);
        await writing;
        writing = writeAll(file, chunk);
      }
      await writing;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return hash.digest("hex");
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.byteLength; ) {
    done += (await file.write(chunk, done, chunk.byteLength - done)).bytesWritten;
  }
}

export interface Hashed {
  /** The same pieces, cut smaller. */
  readonly pieces: AsyncIterable<Uint8Array>;
  /** Called after the last. */
  sha256(): string;
}

/** Hashes pieces while they are taken. */
export function hashed(pieces: Pieces): Hashed {
  const hash = createHash("sha256");
  return {
    sha256: () => hash.digest("hex"),
    pieces: (async function* () {
      for await (const piece of pieces) {
        for (let at = 0; at < piece.byteLength; at += CHUNK_BYTES) {
          const chunk = piece.subarray(at, at + CHUNK_BYTES);
          hash.update(chunk);
          await turn();
          yield chunk;
        }
      }
    })(),
  };
}
