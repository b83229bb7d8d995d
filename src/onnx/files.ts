/** Files, with the errors that users meet. Writing goes to a file beside the target, which is renamed at the end. */
import fs from "node:fs";
import path from "node:path";
import { LockstepError } from "../errors.ts";

/** The failure of a file system as a sentence: FILE_NOT_FOUND, DISK_FULL or IO_FAILED. */
export function fileError(cause: unknown, doing: string, file: string): LockstepError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? "";
  const fields = { file };
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new LockstepError("FILE_NOT_FOUND", `${doing} ${file}: there is no such file.`, {
      fields,
      cause,
    });
  }
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new LockstepError("DISK_FULL", `${doing} ${file}: the disk is full.`, {
      hint: "Nothing was replaced. Make room and try again.",
      fields,
      cause,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LockstepError("IO_FAILED", `${doing} ${file} failed: ${reason}.`, { fields, cause });
}

// One call of the system reads or writes less than 2 GiB.
const CHUNK = 2 ** 30;

/** Bytes [offset, offset + length) of a file; the whole file unless told. */
export function readRange(file: string, offset = 0, length?: number): Uint8Array {
  const doing = "Reading";
  let handle: number;
  try {
    handle = fs.openSync(file, "r");
  } catch (cause) {
    throw fileError(cause, doing, file);
  }
  try {
    const stat = fs.fstatSync(handle);
    if (!stat.isFile()) throw new Error("it is not a regular file");
    const wanted = length ?? stat.size - offset;
    if (offset + wanted > stat.size) {
      throw new LockstepError(
        "FILE_CORRUPT",
        `Reading ${file}: it has ${stat.size} bytes, at least ${offset + wanted} were expected.`,
        { hint: "The file is cut short. Copy or export it again.", fields: { file } },
      );
    }
    const bytes = new Uint8Array(wanted);
    let done = 0;
    while (done < wanted) {
      const count = fs.readSync(handle, bytes, done, Math.min(CHUNK, wanted - done), offset + done);
      if (count === 0) throw new Error("it became shorter while it was read");
      done += count;
    }
    return bytes;
  } catch (cause) {
    throw cause instanceof LockstepError ? cause : fileError(cause, doing, file);
  } finally {
    fs.closeSync(handle);
  }
}

/** Writes `pieces` one after the other (gaps between offsets are zeros), then puts the file in its place. */
export function writeFileSafely(
  file: string,
  pieces: Iterable<{ readonly offset: number; readonly bytes: Uint8Array }>,
): void {
  const beside = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.part`);
  try {
    const handle = fs.openSync(beside, "w");
    try {
      for (const { offset, bytes } of pieces) {
        let done = 0;
        while (done < bytes.byteLength) {
          const count = Math.min(CHUNK, bytes.byteLength - done);
          done += fs.writeSync(handle, bytes, done, count, offset + done);
        }
      }
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
    fs.renameSync(beside, file);
  } catch (cause) {
    fs.rmSync(beside, { force: true });
    throw fileError(cause, "Writing", file);
  }
}
