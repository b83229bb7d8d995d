/** Writes a shard and hashes it on the way, at the same time: neither waits for the other. */
import { type FileHandle, open } from "node:fs/promises";
import { assert } from "../errors.ts";
import { watched } from "../files/index.ts";
import { newSha256 } from "./sha256.ts";
import type { Pieces, ShardBytes } from "./store.ts";

/** Bytes that are written at once. With 4 MiB or more, hashing beside it was slower. */
const CHUNK_BYTES = 2 ** 20;

/** Writes into a file that is there, and flushes it. Returns the SHA-256. */
export async function writeHashed(
  path: string,
  { byteLength, pieces }: ShardBytes,
): Promise<string> {
  const hash = newSha256();
  const file = await watched(path, "writing", () => open(path, "r+"));
  try {
    let written = 0;
    for await (const piece of pieces) {
      const write = async () => {
        await writeAll(file, path, piece);
        written += piece.byteLength;
        // The last bytes are flushed while they are hashed.
        if (written === byteLength) await watched(path, "writing", () => file.sync());
      };
      await both(hash.add(piece), write());
    }
    assert(written === byteLength, `a shard of ${byteLength} bytes, not of ${written}`);
  } finally {
    await file.close();
  }
  return hash.digest();
}

/** Waits for both also when one fails: the other still reads the same bytes. */
async function both(one: Promise<void>, other: Promise<void>): Promise<void> {
  const ended = await Promise.allSettled([one, other]);
  for (const end of ended) if (end.status === "rejected") throw end.reason;
}

async function writeAll(file: FileHandle, path: string, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const [at, length] = [done, Math.min(CHUNK_BYTES, bytes.byteLength - done)];
    const write = () => file.write(bytes, at, length);
    done += (await watched(path, "writing", write)).bytesWritten;
  }
}

export interface Hashed {
  /** The same pieces. */
  readonly pieces: AsyncIterable<Uint8Array>;
  /** Called after the last. */
  sha256(): string;
}

/** Hashes each piece while it is used. */
export function hashed(pieces: Pieces): Hashed {
  const hash = newSha256();
  return {
    sha256: () => hash.digest(),
    pieces: (async function* () {
      for await (const piece of pieces) {
        const hashing = hash.add(piece);
        // It is reported below, when the piece was used.
        hashing.catch(() => undefined);
        try {
          yield piece;
        } finally {
          await hashing;
        }
      }
    })(),
  };
}
