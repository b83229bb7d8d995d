/**
 * Reads ranges of files exactly: if a file became shorter, that is an error, never silent zeros.
 */
import { constants, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { LockstepError } from "../errors.ts";
import { fileError } from "./errors.ts";
import { watched } from "./waits.ts";

/** A file kept open for reading at any place. */
export interface RangeReader {
  readonly byteLength: number;
  /** Fills `into` with the bytes from `offset` on. */
  read(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/**
 * Throws FILE_NOT_FOUND or IO_FAILED; a pipe or a device is refused as well, because it has no end
 * to wait for.
 */
export async function openRange(path: string): Promise<RangeReader> {
  try {
    // Without O_NONBLOCK, opening a pipe that nobody writes to would block.
    const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
    const file = await watched(path, "reading", () => open(path, flags));
    try {
      const stat = await watched(path, "reading", () => file.stat());
      if (!stat.isFile()) throw notAFile(path, stat.isDirectory());
      return {
        byteLength: stat.size,
        read: (offset, into) => readFully(file, path, offset, into),
        close: () => file.close(),
      };
    } catch (error) {
      await file.close();
      throw error;
    }
  } catch (error) {
    throw fileError(error, "read", path);
  }
}

/** Reads one range of a file without keeping it open. */
export async function readRange(path: string, offset: number, into: Uint8Array): Promise<void> {
  const reader = await openRange(path);
  try {
    await reader.read(offset, into);
  } finally {
    await reader.close();
  }
}

/**
 * Checks a file that other code then reads. Throws FILE_NOT_FOUND, or IO_FAILED for anything but a
 * regular file or a link to one.
 */
export function requireFile(path: string): void {
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw notAFile(path, stat.isDirectory());
  } catch (error) {
    throw fileError(error, "read", path);
  }
}

function notAFile(path: string, isFolder: boolean): LockstepError {
  const what = isFolder ? "a folder, not a file" : "a pipe or a device, not a file";
  return new LockstepError("IO_FAILED", `Cannot read "${path}": it is ${what}.`, {
    fields: { path },
  });
}

/**
 * Reads a whole file, of the size that it has when it is opened. Throws what `openRange` throws,
 * and FILE_CORRUPT.
 */
export async function readFileWhole(path: string): Promise<Uint8Array> {
  const reader = await openRange(path);
  try {
    const bytes = new Uint8Array(reader.byteLength);
    await reader.read(0, bytes);
    return bytes;
  } finally {
    await reader.close();
  }
}

/** Reads a whole file whose size is already known. */
export async function readWhole(path: string, byteLength: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(byteLength);
  await readRange(path, 0, bytes);
  return bytes;
}

/** The most bytes of one read; systems refuse 2 GiB and more. */
const MAX_READ_BYTES = 1 << 28;

async function readFully(
  file: FileHandle,
  path: string,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  let done = 0;
  while (done < into.byteLength) {
    const length = Math.min(MAX_READ_BYTES, into.byteLength - done);
    let bytesRead: number;
    try {
      const at = done;
      const read = () => file.read(into, at, length, offset + at);
      ({ bytesRead } = await watched(path, "reading", read));
    } catch (error) {
      throw fileError(error, "read", path);
    }
    if (bytesRead === 0) {
      throw new LockstepError(
        "FILE_CORRUPT",
        `"${path}" ends at byte ${offset + done}, but ${into.byteLength - done} more were expected.`,
        { hint: "Was the file changed while it was in use?", fields: { path } },
      );
    }
    done += bytesRead;
  }
}
