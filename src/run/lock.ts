/**
 * The lock of a run's folder: one process at a time writes it. The process holds a kernel lock on
 * the file `run.lock`. The lock ends with the process however that ends, and file servers keep it
 * for all machines that share a folder. Where a file system has no locks, or the last owner was on
 * another machine, the file is watched: its owner writes a new number into it every few seconds.
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
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { fileError, makeFolder } from "../files/index.ts";
import { loadSystemLibrary } from "../memory/index.ts";
import type { RunFolder } from "./folder.ts";

const FILE = "run.lock";
/** The milliseconds after which an owner writes a new number. */
const BEAT_MS = 5_000;
/** The milliseconds without a new number after which an owner counts as gone. */
const WATCH_MS = 3 * BEAT_MS + 1_000;
/**
 * The milliseconds in which two processes that begin at once see each other, on file systems
 * without locks.
 */
const FIRST_MS = 500;
/** How long the leader before may take to let go of the folder: as long as agents let a lost one. */
const RELEASE_MS = 45_000;
const LOOK_MS = 50;
/** How often the file may be another one by the time that it is open. */
const MOST_TRIES = 1_000;

type LockedFolder = Pick<RunFolder, "path" | "file">;

export interface FolderLock {
  /** Releases the folder. A second call does nothing. */
  release(): void;
}

export interface LockOptions {
  /** The milliseconds for which the file of an owner on another machine is watched. */
  readonly watchMs?: number;
  /** Aborting it ends the watch and throws its reason. */
  readonly signal?: AbortSignal;
  /** Is given a sentence that says for whom it waits, before an owner is watched. */
  readonly onWatch?: (text: string) => void;
  /** What the owner does with the folder. Default: a run is being written to it. */
  readonly what?: string;
}

/** The contents of the file. */
const ownerSchema = z.object({
  host: z.string(),
  pid: z.int(),
  /** In ISO 8601. */
  since: z.string(),
  /** The identity of a machine's boot; the same for all its processes, also in containers. */
  boot: z.string(),
  beat: z.string(),
});
type Owner = z.infer<typeof ownerSchema>;

/**
 * Locks the folder of a run for its leader.
 * @param hasOwner whether there was another leader, who may still write a checkpoint. One that
 *   cannot be reached any more may still be about to end, in a folder that all share. So it has
 *   time to let go of the folder
 * @throws as `lockFolder`
 */
export async function lockForLeader(
  folder: LockedFolder,
  { signal, hasOwner }: { readonly signal: AbortSignal; readonly hasOwner: boolean },
): Promise<FolderLock> {
  const lateAt = performance.now() + (hasOwner ? RELEASE_MS : 0);
  for (;;) {
    try {
      return await lockFolder(folder, { signal });
    } catch (error) {
      const isLocked = error instanceof LockstepError && error.code === "RUN_LOCKED";
      if (!isLocked || performance.now() > lateAt) throw error;
      await delay(LOOK_MS, undefined, { signal });
    }
  }
}

/**
 * Creates the folder if needed, and locks it for this process.
 * @throws RUN_LOCKED naming the owner; IO_FAILED
 */
export async function lockFolder(
  folder: LockedFolder,
  options: LockOptions = {},
): Promise<FolderLock> {
  const isNew = !existsSync(folder.path);
  const path = folder.file(FILE);
  try {
    await makeFolder(folder.path);
    for (let left = MOST_TRIES; left > 0; left--) {
      const taken = takeFile(folder, path, options);
      if (taken === undefined) continue; // the last owner has just removed the file
      try {
        await watch(folder, path, taken, options);
      } catch (error) {
        closeSync(taken.file);
        throw error;
      }
      const lock = hold(path, taken.file, isNew);
      if (taken.isLocked) return lock;
      // Of two processes that begin at once, the last to write owns the folder.
      const own = readOwner(path)?.beat;
      await delay(FIRST_MS);
      const owner = readOwner(path);
      if (owner === undefined || owner.beat === own) return lock;
      lock.leave();
      throw locked(folder, owner, options);
    }
    throw new LockstepError(
      "IO_FAILED",
      `"${path}" cannot be locked: it is replaced again and again.`,
      {
        hint: "Name a folder on another file system with --out.",
        fields: { path },
      },
    );
  } catch (error) {
    throw fileError(error, "write", path);
  }
}

interface Taken {
  readonly file: number;
  /** Whether the kernel holds the lock; false if the file system has no locks. */
  readonly isLocked: boolean;
}

/** Returns undefined when the name belongs to another file by now. */
function takeFile(folder: LockedFolder, path: string, options: LockOptions): Taken | undefined {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  const file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o644);
  try {
    if (!fstatSync(file).isFile()) {
      throw new LockstepError(
        "IO_FAILED",
        `"${path}" is not a file, but a run needs a file there.`,
      );
    }
    const lock = kernelLock(file);
    if (lock === "held") throw locked(folder, readOwner(path), options);
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
  // Some file systems have no locks. There only the number in the file shows an owner.
  return [EWOULDBLOCK, EAGAIN].includes(koffi.errno()) ? "held" : "unknown";
}

/**
 * Waits until the owner that the file names is known to be gone. The kernel lock has already shown
 * this for an owner on this machine, but a lock of another machine may not be visible here.
 */
async function watch(
  folder: LockedFolder,
  path: string,
  { isLocked }: Taken,
  options: LockOptions,
): Promise<void> {
  const { watchMs = WATCH_MS, signal, onWatch } = options;
  const first = readOwner(path);
  if (first === undefined || (isLocked && first.boot === bootId())) return;
  const { pid, host, since } = first;
  onWatch?.(
    `"${folder.path}" has the lock of process ${pid} on "${host}", since ${since}, which is another machine, or this one before it was restarted. The lock is watched for ${watchMs / 1000} s; this run goes on if it stays as it is.`,
  );
  const pieces = 16;
  for (let piece = 0; piece < pieces; piece++) {
    await delay(watchMs / pieces);
    signal?.throwIfAborted();
    const owner = readOwner(path);
    if (owner === undefined) return;
    if (owner.beat !== first.beat) throw locked(folder, owner, options);
  }
}

/** `leave` gives up a file that another process has taken meanwhile. */
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
      // A full disk does not end the lock.
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
      // The name is removed first, so that whoever opens it from now on creates a new file.
      rmSync(path, { force: true });
      leave();
      if (isNew) removeEmpty(dirname(path));
    },
  };
}

/** Removes the folder of a run that ended before it wrote anything. */
function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // The folder is not empty.
  }
}

function readOwner(path: string): Owner | undefined {
  try {
    return ownerSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch {
    return undefined;
  }
}

export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return hostname();
  }
}

function locked(
  { path }: LockedFolder,
  owner: Owner | undefined,
  { what = "A run is being written to" }: LockOptions,
): LockstepError {
  const { host = "unknown", pid = 0, since = "" } = owner ?? {};
  const who =
    owner === undefined ? "another process" : `process ${pid} on "${host}", since ${since}`;
  return new LockstepError("RUN_LOCKED", `${what} "${path}" by ${who}.`, {
    hint: "Wait for its end, stop it, or name another folder with --out.",
    fields: { path, host, pid, since },
  });
}
