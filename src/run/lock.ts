/**
 * One process at a time writes a run's folder. It holds a lock of the kernel on the file `run.lock`, which ends with the process
 * however that ends, and which file servers keep for all machines that share a folder. Where a file system has no locks,
 * and where the last owner was another machine, the file is watched: whoever owns it writes a new number into it every few seconds.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import koffi from "koffi";
import { LockstepError } from "../errors.ts";
import { fileError, makeFolder } from "../files/index.ts";
import { loadSystemLibrary } from "../memory/index.ts";
import type { RunFolder } from "./folder.ts";

const FILE = "run.lock";
/** How often an owner writes a new number. */
const BEAT_MS = 5_000;
/** How long a file without a new number is watched before its owner counts as gone. */
const WATCH_MS = 3 * BEAT_MS + 1_000;
/** How long two that begin at once may take to see each other, where there are no locks of the kernel. */
const FIRST_MS = 500;

export interface FolderLock {
  /** Gives the folder free. A second call does nothing. */
  release(): void;
}

export interface LockOptions {
  /** Of the watch over an owner on another machine. */
  readonly watchMs?: number;
  /** Ends the watch; its reason is thrown. */
  readonly signal?: AbortSignal;
}

/** What stands in the file. */
interface Owner {
  readonly host: string;
  readonly pid: number;
  /** In words of ISO 8601. */
  readonly since: string;
  /** The same for all processes, in containers too, between two starts of a machine. */
  readonly boot: string;
  readonly beat: string;
}

/**
 * Makes the folder if need be, and takes it for this process.
 * @throws RUN_LOCKED naming the owner, IO_FAILED
 */
export async function lockFolder(
  folder: RunFolder,
  options: LockOptions = {},
): Promise<FolderLock> {
  const isNew = !existsSync(folder.path);
  const path = folder.file(FILE);
  try {
    await makeFolder(folder.path);
    for (;;) {
      const taken = takeFile(folder, path);
      if (taken === undefined) continue; // its last owner has just removed it
      try {
        await watch(folder, path, taken, options);
      } catch (error) {
        closeSync(taken.file);
        throw error;
      }
      const lock = hold(path, taken.file, isNew);
      if (taken.isLocked) return lock;
      // Of two who begin at once, the one who wrote last has it.
      const own = readOwner(path)?.beat;
      await delay(FIRST_MS);
      const owner = readOwner(path);
      if (owner === undefined || owner.beat === own) return lock;
      lock.leave();
      throw locked(folder, owner);
    }
  } catch (error) {
    throw fileError(error, "write", path);
  }
}

interface Taken {
  readonly file: number;
  /** By the kernel, where the file system has locks. */
  readonly isLocked: boolean;
}

/** Undefined when the name means another file by now. */
function takeFile(folder: RunFolder, path: string): Taken | undefined {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  const file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o644);
  try {
    if (!fstatSync(file).isFile()) {
      throw new LockstepError("IO_FAILED", `"${path}" is no file, and a run needs one there.`);
    }
    const lock = kernelLock(file);
    if (lock === "held") throw locked(folder, readOwner(path));
    const isSame = fstatSync(file).ino === statSync(path, { throwIfNoEntry: false })?.ino;
    if (isSame) return { file, isLocked: lock === "taken" };
  } catch (error) {
    closeSync(file);
    throw error;
  }
  closeSync(file);
  return undefined;
}

type Flock = (file: number, operation: number) => number;
let flock: Flock | undefined;

function kernelLock(file: number): "taken" | "held" | "unknown" {
  if (process.platform === "win32") return "unknown";
  flock ??= loadSystemLibrary().func<Flock>("int flock(int file, int operation)");
  const exclusiveAtOnce = 2 | 4;
  if (flock(file, exclusiveAtOnce) === 0) return "taken";
  const { EWOULDBLOCK, EAGAIN } = koffi.os.errno;
  // Some file systems have no locks. There, the number in the file alone tells of an owner.
  return [EWOULDBLOCK, EAGAIN].includes(koffi.errno()) ? "held" : "unknown";
}

/**
 * Waits until it is known that the owner whom the file names is gone. On this machine the lock of the kernel has told
 * already; a lock of another machine may not be seen here.
 */
async function watch(
  folder: RunFolder,
  path: string,
  { isLocked }: Taken,
  { watchMs = WATCH_MS, signal }: LockOptions,
): Promise<void> {
  const first = readOwner(path);
  if (first === undefined || (isLocked && first.boot === bootId())) return;
  const pieces = 16;
  for (let piece = 0; piece < pieces; piece++) {
    await delay(watchMs / pieces);
    signal?.throwIfAborted();
    const owner = readOwner(path);
    if (owner === undefined) return;
    if (owner.beat !== first.beat) throw locked(folder, owner);
  }
}

/** `leave` gives up a file that another has taken meanwhile. */
function hold(path: string, file: number, isNew: boolean): FolderLock & { leave(): void } {
  const owner = {
    host: hostname(),
    pid: process.pid,
    since: new Date().toISOString(),
    boot: bootId(),
  };
  const mark = randomBytes(4).toString("hex");
  let [count, isOpen] = [0, true];
  const beat = () => {
    count += 1;
    const text = `${JSON.stringify({ ...owner, beat: `${mark} ${count}` })}\n`;
    try {
      ftruncateSync(file, writeSync(file, text, 0));
    } catch {
      // A full disk does not take the lock away.
    }
  };
  beat();
  const timer = setInterval(beat, BEAT_MS).unref();
  const leave = () => {
    if (isOpen) closeSync(file);
    isOpen = false;
    clearInterval(timer);
  };
  return {
    leave,
    release: () => {
      if (!isOpen) return;
      // The name goes first: whoever opens it from now on makes a file of its own.
      rmSync(path, { force: true });
      leave();
      if (isNew) removeEmpty(dirname(path));
    },
  };
}

/** A run that ended before it wrote anything leaves no folder. */
function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // It holds something.
  }
}

function readOwner(path: string): Owner | undefined {
  try {
    const found = JSON.parse(readFileSync(path, "utf8")) as Owner;
    return typeof found.boot === "string" ? found : undefined;
  } catch {
    return undefined;
  }
}

function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return hostname();
  }
}

function locked({ path }: RunFolder, owner: Owner | undefined): LockstepError {
  const { host = "unknown", pid = 0, since = "" } = owner ?? {};
  const who =
    owner === undefined ? "another process" : `process ${pid} on "${host}", since ${since}`;
  return new LockstepError("RUN_LOCKED", `A run is being written to "${path}" by ${who}.`, {
    hint: "Wait for its end or stop it; or take another folder: --out.",
    fields: { path, host, pid, since },
  });
}
