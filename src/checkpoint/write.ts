/**
 * Writes one shard of a draft, and waits for the shards of others. How a writer has ended is told
 * by the name of its file: a rename needs no space on a full disk and no message to another
 * process, so it works beside training and whatever happens to the group meanwhile.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, readdir, rename, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type ErrorCode, LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { partPath, placeOf } from "./folder.ts";
import type { Shard } from "./manifest.ts";

/** Bytes that are hashed at once: well under a millisecond. */
const CHUNK_BYTES = 2 ** 20;
/** The milliseconds between two looks at the shards of others. */
const LOOK_MS = 10;
/** The milliseconds without any progress of the others after which they are given up. */
const STALLED_MS = 600_000;

/** The pieces of a file, in order. Each is valid until the next is asked for. */
export type Pieces = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes the shard of a rank, flushes it, and gives it a name that says how that ended. While it
 * runs it blocks the event loop for less than a millisecond at once.
 * @throws DISK_FULL, IO_FAILED
 */
export async function writeShard(draft: string, rank: number, pieces: Pieces): Promise<void> {
  const path = partPath(draft, rank);
  try {
    const sha256 = await writeHashed(path, pieces);
    await rename(path, join(draft, `rank-${rank}.${sha256}.done`));
  } catch (thrown) {
    const error = fileError(thrown, "write", placeOf(draft));
    const code = error instanceof LockstepError ? error.code : "BUG";
    // If the leader has given the draft up, the file is not there any more.
    await truncate(path).catch(() => undefined);
    await rename(path, join(draft, `rank-${rank}.${code}.failed`)).catch(() => undefined);
    throw error;
  }
}

async function writeHashed(path: string, pieces: Pieces): Promise<string> {
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

/**
 * Waits until all writers have ended, and gives their files the names of shards. `signal` ends the
 * wait: a writer that is lost will not end.
 * @throws the error of a writer, IO_FAILED when none goes on, the reason of `signal`
 */
export async function gatherShards(
  draft: string,
  writers: readonly number[],
  signal?: AbortSignal,
): Promise<Shard[]> {
  const found = await waitForAll(draft, writers, signal);
  const shards: Shard[] = [];
  for (const [index, rank] of writers.entries()) {
    const sha256 = found.get(rank) as string;
    const file = shardName(index, writers.length);
    const path = join(draft, file);
    try {
      await rename(join(draft, `rank-${rank}.${sha256}.done`), path);
      shards.push({ file, byteLength: (await stat(path)).size, sha256 });
    } catch (error) {
      throw fileError(error, "write", placeOf(draft));
    }
  }
  return shards;
}

function shardName(index: number, count: number): string {
  const digits = (value: number) => String(value).padStart(5, "0");
  return `shard-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

/** Returns the SHA-256 of what each writer has written. */
async function waitForAll(
  draft: string,
  writers: readonly number[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<number, string>> {
  let [seen, seenAt] = ["", performance.now()];
  for (;;) {
    const isLast = signal?.aborted === true;
    const names = await list(draft);
    const ended = names.flatMap((name) => {
      const [, rank, how, what] = /^rank-(\d+)\.(\w+)\.(done|failed)$/.exec(name) ?? [];
      return rank === undefined ? [] : [{ rank: Number(rank), how: how as string, what }];
    });
    const failed = ended.find(({ what }) => what === "failed");
    if (failed !== undefined) throw failureOf(draft, failed.rank, failed.how);
    if (ended.length === writers.length) return new Map(ended.map(({ rank, how }) => [rank, how]));
    if (isLast) throw signal.reason;
    const sizes = await Promise.all(
      names.map((name) => stat(join(draft, name)).then(({ size }) => size, Number)),
    );
    const now = `${names.join()} ${sizes.join()}`;
    if (now !== seen) [seen, seenAt] = [now, performance.now()];
    else if (performance.now() - seenAt > STALLED_MS) {
      const text = `No worker has written to the checkpoint "${placeOf(draft)}" for ${STALLED_MS / 1000} s.`;
      throw new LockstepError("IO_FAILED", text, { fields: { path: placeOf(draft) } });
    }
    await delay(LOOK_MS);
  }
}

async function list(draft: string): Promise<string[]> {
  try {
    return await readdir(draft);
  } catch (error) {
    throw fileError(error, "list", placeOf(draft));
  }
}

function failureOf(draft: string, rank: number, code: string): LockstepError {
  const known: readonly ErrorCode[] = ["DISK_FULL", "IO_FAILED"];
  const said = known.find((one) => one === code) ?? "IO_FAILED";
  const why = said === "DISK_FULL" ? "the disk is full" : `it failed (${code})`;
  return new LockstepError(
    said,
    `Worker ${rank} cannot write its shard of the checkpoint "${placeOf(draft)}": ${why}.`,
    { fields: { path: placeOf(draft), rank } },
  );
}
