/**
 * Files that are replaced as a whole or not at all: they are written beside their place, flushed,
 * and renamed. A reader sees the old file or the new one, never a mixture.
 */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileError } from "./errors.ts";
import { makeFolder } from "./folder.ts";
import { watched } from "./waits.ts";

export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** One `write` takes at most this much: some systems refuse 2 GiB and more at once. */
const MAX_WRITE_BYTES = 1 << 28;

/**
 * Writes `content` to `path`, and makes its folder if needed. Pieces are written in order and are
 * not gathered in memory. Throws DISK_FULL or IO_FAILED; the old file, if any, is then untouched
 * and nothing is left behind.
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    await watched(path, "writing", () => makeFolder(folder));
    const file = await watched(path, "writing", () => open(temporary, "wx"));
    try {
      for await (const piece of pieces(content)) {
        await watched(path, "writing", () => writeAll(file, piece));
      }
      await watched(path, "writing", () => file.sync());
    } finally {
      await file.close();
    }
    await watched(path, "writing", () => rename(temporary, path));
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fileError(error, "write", path);
  }
}

function pieces(content: FileContent): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === "string") return [Buffer.from(content, "utf8")];
  return content instanceof Uint8Array ? [content] : content;
}

async function writeAll(file: FileHandle, piece: Uint8Array): Promise<void> {
  for (let start = 0; start < piece.byteLength; ) {
    const length = Math.min(MAX_WRITE_BYTES, piece.byteLength - start);
    const { bytesWritten } = await file.write(piece, start, length);
    start += bytesWritten;
  }
}

/** Makes the rename itself durable. Windows cannot open a folder, and does not need to. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await watched(folder, "writing", () => open(folder, "r"));
  try {
    await watched(folder, "writing", () => handle.sync());
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "EINVAL" && code !== "ENOTSUP") throw error; // some network file systems
  } finally {
    await handle.close();
  }
}
