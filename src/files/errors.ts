/** Turns failures of the file system into Lockstep's errors. */
import { type ErrorCode, LockstepError } from "../errors.ts";

type Doing = "read" | "write" | "list";

/**
 * The error to throw for `error`, which occurred while `doing` something with `path`. Lockstep's
 * own errors are returned unchanged.
 */
export function fileError(error: unknown, doing: Doing, path: string): unknown {
  if (error instanceof LockstepError || !isSystemError(error)) return error;
  const [code, what, hint] = explain(error, doing);
  return new LockstepError(code, `Cannot ${doing} "${path}": ${what}.`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { path, systemCode: error.code },
    cause: error,
  });
}

interface SystemError extends Error {
  readonly code: string;
  readonly syscall: string;
}

function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && "code" in error && "syscall" in error;
}

function explain(error: SystemError, doing: Doing): [ErrorCode, string, string?] {
  switch (error.code) {
    case "ENOSPC":
      return ["DISK_FULL", "the disk is full", "Free some space, or write to another disk."];
    case "EDQUOT":
      return ["DISK_FULL", "your quota on this disk is used up", "Free some space."];
    case "EFBIG":
      return ["DISK_FULL", "the file would be larger than this system or process may write"];
    case "ENOENT":
      return doing === "write"
        ? ["IO_FAILED", "its folder does not exist"]
        : ["FILE_NOT_FOUND", "there is no such file"];
    case "EACCES":
    case "EPERM":
      return ["IO_FAILED", "permission denied"];
    case "EISDIR":
      return ["IO_FAILED", "it is a folder, not a file"];
    case "ENOTDIR":
      return ["IO_FAILED", "a part of its path is a file, not a folder"];
    case "ELOOP":
      return ["IO_FAILED", "it is a link, and links are not followed here"];
    case "ENXIO":
    case "ENODEV":
      return ["IO_FAILED", "it is a pipe or a device, not a file"];
    case "EROFS":
      return ["IO_FAILED", "the file system is read-only"];
    case "EMFILE":
    case "ENFILE":
      return ["IO_FAILED", "too many files are open"];
    default:
      return ["IO_FAILED", `the system reports ${error.code}`];
  }
}
