/**
 * The files of named memory, called `lockstep-NAME.NAMESPACE.PID`. Files that a killed process left
 * behind are removed by the next process that makes one in the same folder.
 *
 * Other users of the machine may put files into some of these folders. So only regular files that
 * belong to this process's user, and that no other user may open, are examined, opened or removed,
 * and no link is followed.
 */
import fs from "node:fs";
import path from "node:path";
import { type ErrorCode, LockstepError } from "../errors.ts";

/** A folder for files of memory. */
export interface Place {
  readonly folder: string;
  /**
   * `shared`: files in memory, for several processes. `disk`: files that hold what memory cannot.
   */
  readonly use: "shared" | "disk";
}

/** A file that another process has made. */
export interface OpenedFile {
  readonly fd: number;
  readonly size: number;
  /** Tells it from all other files while it is open or mapped. */
  readonly identity: string;
}

export interface NamedFile {
  readonly fd: number;
  /** Removes the name; those who have opened the file keep it. */
  readonly unlink: () => void;
}

/** Where processes share memory on Linux. */
export const SHARED_FOLDER = "/dev/shm";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = fs.constants;
const CREATE = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
/** O_NONBLOCK: a pipe in place of the file must not block the process. */
const OPEN = O_RDWR | O_NOFOLLOW | O_NONBLOCK;

/** Files of this process, which are removed when it ends without closing them. */
const mine = new Set<string>();

function removeMine(): void {
  for (const file of mine) fs.rmSync(file, { force: true });
}

/** Makes an empty file that only this user can open. The caller closes `fd`. */
export function createNamed(place: Place, name: string): NamedFile {
  const { folder } = place;
  sweep(folder);
  if (find(place, name) !== undefined) {
    throw new LockstepError("MEMORY_NAME", `Shared memory "${name}" exists already.`, {
      hint: "Each piece of shared memory needs a name of its own.",
      fields: { name },
    });
  }
  const file = path.join(folder, `${prefixOf(name)}${pidNamespace()}.${process.pid}`);
  const fd = inPlace(place, () => fs.openSync(file, CREATE, 0o600));
  if (!process.listeners("exit").includes(removeMine)) process.once("exit", removeMine);
  mine.add(file);
  const unlink = () => {
    fs.rmSync(file, { force: true });
    mine.delete(file);
  };
  return { fd, unlink };
}

/** Opens a file that another process has made. The caller closes `fd`. */
export function openNamed(place: Place, name: string): OpenedFile {
  const { folder } = place;
  const file = find(place, name);
  if (file === undefined) {
    throw new LockstepError("MEMORY_NAME", `There is no shared memory "${name}".`, {
      hint: "The process that created it has ended, or runs on another machine.",
      fields: { name },
    });
  }
  const fd = inPlace(place, () => fs.openSync(path.join(folder, file), OPEN));
  const stat = fs.fstatSync(fd);
  if (isOwn(stat)) return openedFile(fd, stat);
  fs.closeSync(fd);
  throw new LockstepError(
    "MEMORY_NAME",
    `The file of shared memory "${name}" in ${folder} is not one that this user made.`,
    { hint: "Another user of this machine has created it.", fields: { name } },
  );
}

/**
 * How other processes of this user open a file that this process has open, also when its name is
 * gone. It ends with the descriptor. Undefined where the system has no such way.
 */
export function handleOf(fd: number): string | undefined {
  if (process.platform !== "linux") return undefined;
  return [HANDLE, pidNamespace(), process.pid, fd, fs.fstatSync(fd).ino].join(":");
}

export function isHandle(text: string): boolean {
  return text.startsWith(`${HANDLE}:`);
}

/** Opens the file of a handle. The caller closes `fd`. Throws MEMORY_NAME. */
export function openHandle(handle: string): OpenedFile {
  const [, namespace, pid = "", at = "", inode] = /^fd:(\d+):(\d+):(\d+):(\d+)$/.exec(handle) ?? [];
  if (namespace === pidNamespace()) {
    const fd = openOrUndefined(`/proc/${pid}/fd/${at}`);
    const stat = fd === undefined ? undefined : fs.fstatSync(fd);
    // The process may have ended, and another one have its number.
    if (fd !== undefined && stat !== undefined && isOwn(stat) && String(stat.ino) === inode) {
      return openedFile(fd, stat);
    }
    if (fd !== undefined) fs.closeSync(fd);
  }
  throw new LockstepError("MEMORY_NAME", `There is no shared memory "${handle}".`, {
    hint: "The process that created it has ended, or runs on another machine.",
    fields: { name: handle },
  });
}

function openedFile(fd: number, { dev, ino, size }: fs.Stats): OpenedFile {
  return { fd, size, identity: `${dev}:${ino}` };
}

/** A handle as numbers, as messages of ranks carry them. */
export function numbersOfHandle(handle: string): number[] {
  return handle.split(":").slice(1).map(Number);
}

export function handleOfNumbers(numbers: readonly number[]): string {
  return [HANDLE, ...numbers].join(":");
}

const HANDLE = "fd";

function openOrUndefined(file: string): number | undefined {
  try {
    return fs.openSync(file, O_RDWR | O_NONBLOCK);
  } catch {
    return undefined;
  }
}

/** The bytes that can still be shared on this machine; undefined where that is not known. */
export function sharedRoom(): number | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const { blocks, bavail, bsize } = fs.statfsSync(SHARED_FOLDER);
    // A file system in memory that has no limit says that it has no blocks.
    return blocks === 0 ? undefined : bavail * bsize;
  } catch {
    return undefined; // whoever needs the folder gets an error that says why it cannot be used
  }
}

/** Whether a file of a folder is named as files of memory are. */
export function isNamedFile(file: string): boolean {
  return NAMED.test(file);
}

const NAMED = /^lockstep-.*\.(\d+)\.(\d+)$/;

function prefixOf(name: string): string {
  return `lockstep-${name}.`;
}

function find(place: Place, name: string): string | undefined {
  const prefix = prefixOf(name);
  return inPlace(place, () => fs.readdirSync(place.folder)).find(
    (file) =>
      file.startsWith(prefix) &&
      /^\d+\.\d+$/.test(file.slice(prefix.length)) &&
      isOwnFile(path.join(place.folder, file)),
  );
}

function isOwnFile(file: string): boolean {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  return stat !== undefined && isOwn(stat);
}

/** Whether this is a regular file of this user that no other user may open. */
function isOwn(stat: fs.Stats): boolean {
  return stat.isFile() && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0;
}

const REASONS = new Map([
  ["ENOENT", "there is no such folder"],
  ["ENOTDIR", "it is not a folder"],
  ["EROFS", "it is read-only"],
  ["EACCES", "this user may not use it"],
  ["EPERM", "this user may not use it"],
  ["ENOSPC", "it is full"],
  ["EDQUOT", "your quota there is used up"],
  ["EFBIG", "this process may not write files so large"],
  ["EMFILE", "this process has too many files open"],
]);

/** Runs `body` and explains in words what the system refuses in this folder. */
export function inPlace<Result>(place: Place, body: () => Result): Result {
  try {
    return body();
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw refused(place, (cause as NodeJS.ErrnoException).code ?? String(cause), { cause });
  }
}

/** The error for what the system refuses in a folder, by the system's own code, such as ENOSPC. */
export function refused(
  { folder, use }: Place,
  code: string,
  { cause, byteLength }: { readonly cause?: unknown; readonly byteLength?: number } = {},
): LockstepError {
  const why = REASONS.get(code) ?? `the system reports ${code}`;
  const options = { fields: { folder, systemCode: code }, cause };
  // Only runs of several processes need shared memory.
  if (use === "shared") {
    return new LockstepError("SHARED_MEMORY", `Memory cannot be shared in ${folder}: ${why}.`, {
      ...options,
      hint: `The workers of a machine share memory there. Give them a ${folder} that can be written (in a container: --shm-size, or a tmpfs), or train with one worker, which needs none.`,
    });
  }
  const isFull = ["ENOSPC", "EDQUOT", "EFBIG"].includes(code);
  const error: ErrorCode = isFull ? "DISK_FULL" : "IO_FAILED";
  const what = byteLength === undefined ? "" : `, ${Math.ceil(byteLength / 1e6)} MB of it`;
  return new LockstepError(
    error,
    `What a run keeps on disk cannot be written in "${folder}"${what}: ${why}.`,
    { ...options, hint: "Make room there, or take a folder of another disk: --out." },
  );
}

/**
 * The namespace of process ids. Ids are unique only within it, and containers may share /dev/shm.
 */
export function pidNamespace(): string {
  try {
    return /\d+/.exec(fs.readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
  } catch {
    return "0";
  }
}

/** Removes files that processes of this namespace left behind when they were killed. */
export function sweep(folder: string): void {
  const here = pidNamespace();
  let files: string[];
  try {
    files = fs.readdirSync(folder);
  } catch {
    return; // whoever needs the folder gets an error that says why it cannot be used
  }
  for (const file of files) {
    const [, namespace, pid] = NAMED.exec(file) ?? [];
    if (namespace !== here || isAlive(Number(pid))) continue;
    // A file of another user is left to a process of that user.
    if (isOwnFile(path.join(folder, file))) fs.rmSync(path.join(folder, file), { force: true });
  }
}

/** Whether there is a process of this namespace with this id that has not ended. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !isZombie(pid);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Whether the process has ended and its parent has not yet noticed, which may take long. */
function isZombie(pid: number): boolean {
  try {
    return /\) [ZXx] [^)]*$/.test(fs.readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false; // there is no /proc here, or the process is gone by now
  }
}
