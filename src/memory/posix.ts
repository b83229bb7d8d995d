/**
 * Memory on Linux and macOS, by mmap. Named memory is a file under /dev/shm (Linux) or in the
 * folder for temporary files (macOS), called `lockstep-NAME.NAMESPACE.PID`. Files that a killed
 * process left behind are removed by the next process when it first allocates memory of any kind.
 *
 * Every user of the machine may put files into these folders. So only regular files that belong to
 * this process's user, and that no other user may open, are examined, opened or removed, and no
 * link is followed.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import koffi from "koffi";
import { LESS_MEMORY, LockstepError } from "../errors.ts";
import { type Address, type Library, loadLibrary } from "./ffi.ts";
import type { Mapping, NamedMapping, Part, Platform } from "./platform.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MADV_HUGEPAGE = 14;
const LARGE_PAGE_BYTES = 2 ** 21;
const FAILED = 2n ** 64n - 1n;

type Mmap = (
  address: Address | null,
  byteLength: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => Address | null;
type Munmap = (address: Address, byteLength: number) => number;
type Madvise = (address: Address, byteLength: number, advice: number) => number;
type Reserve = (fd: number, offset: number, byteLength: number) => number;

export function posixPlatform(): Platform {
  const linux = process.platform === "linux";
  const anonymous = linux ? 0x20 : 0x1000;
  const noReserve = linux ? 0x4000 : 0x40;
  const libc = loadSystemLibrary();
  const mmap = libc.func<Mmap>(
    "void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)",
  );
  const munmap = libc.func<Munmap>("int munmap(void *address, size_t length)");
  // The space is reserved at once: without it, a write to a page of tmpfs would kill the process.
  const reserve = linux
    ? libc.func<Reserve>("int posix_fallocate(int fd, int64_t offset, int64_t length)")
    : () => 0;
  const madvise = linux
    ? libc.func<Madvise>("int madvise(void *address, size_t length, int advice)")
    : () => 0;
  const folder = linux ? "/dev/shm" : os.tmpdir();
  sweep(folder);

  const mapOrThrow = (
    byteLength: number,
    protection: number,
    flags: number,
    fd: number,
  ): Mapping => {
    const address = mmap(null, byteLength, protection, flags, fd, 0);
    if (address === null || address === FAILED) throw outOfMemory(byteLength, koffi.errno());
    return { address, byteLength };
  };
  const mapDescriptor = (fd: number, byteLength: number, protection: number): Mapping =>
    mapOrThrow(byteLength, protection, MAP_SHARED, fd);

  return {
    map(byteLength, isSparse): Mapping {
      const flags = MAP_PRIVATE | anonymous;
      const mapping = mapOrThrow(byteLength, PROT_READ | PROT_WRITE, flags, -1);
      if (!isSparse && byteLength >= LARGE_PAGE_BYTES)
        madvise(mapping.address, byteLength, MADV_HUGEPAGE);
      return mapping;
    },

    create(name, byteLength, parts): NamedMapping {
      sweep(folder);
      if (find(folder, name) !== undefined) {
        throw new LockstepError("MEMORY_NAME", `Shared memory "${name}" exists already.`, {
          hint: "Each piece of shared memory needs a name of its own.",
          fields: { name },
        });
      }
      const file = path.join(folder, `${prefixOf(name)}${pidNamespace()}.${process.pid}`);
      const fd = inFolder(folder, () => fs.openSync(file, CREATE, 0o600));
      const unlink = () => {
        fs.rmSync(file, { force: true });
        mine.delete(file);
      };
      if (!process.listeners("exit").includes(removeMine)) process.once("exit", removeMine);
      mine.add(file);
      try {
        inFolder(folder, () => fs.ftruncateSync(fd, byteLength));
        for (const part of parts) {
          if (part.byteLength === 0) continue;
          const errno = reserve(fd, part.byteOffset, part.byteLength);
          if (errno !== 0) throw outOfMemory(byteLengthOf(parts), errno, folder);
        }
        return { ...mapDescriptor(fd, byteLength, PROT_READ | PROT_WRITE), unlink };
      } catch (error) {
        unlink();
        throw error;
      } finally {
        fs.closeSync(fd);
      }
    },

    open(name): Mapping {
      const file = find(folder, name);
      if (file === undefined) {
        throw new LockstepError("MEMORY_NAME", `There is no shared memory "${name}".`, {
          hint: "The process that created it has ended, or runs on another machine.",
          fields: { name },
        });
      }
      const fd = inFolder(folder, () => fs.openSync(path.join(folder, file), OPEN));
      try {
        const stat = fs.fstatSync(fd);
        if (!isOwn(stat)) throw notOwn(name, folder);
        return mapDescriptor(fd, stat.size, PROT_READ | PROT_WRITE);
      } finally {
        fs.closeSync(fd);
      }
    },

    mapFile(file): Mapping {
      const fd = fs.openSync(file, "r");
      try {
        return mapDescriptor(fd, fs.fstatSync(fd).size, PROT_READ);
      } finally {
        fs.closeSync(fd);
      }
    },

    /** Replaces the pages by empty ones: a late read finds zeros, a late write has no effect. */
    retire({ address, byteLength }): boolean {
      const flags = MAP_PRIVATE | anonymous | noReserve | MAP_FIXED;
      return mmap(address, byteLength, PROT_READ | PROT_WRITE, flags, -1, 0) === address;
    },

    unmap({ address, byteLength }): void {
      munmap(address, byteLength);
    },

    preferLargePages(address): void {
      const mapping = linux ? findMapping(address) : undefined;
      if (mapping !== undefined) madvise(mapping.address, mapping.byteLength, MADV_HUGEPAGE);
    },
  };
}

/** Files of this process, which are removed when it ends without closing them. */
const mine = new Set<string>();

function removeMine(): void {
  for (const file of mine) fs.rmSync(file, { force: true });
}

/** Opens the C library of this system. */
export function loadSystemLibrary(): Library {
  return loadLibrary(process.platform === "linux" ? libcName() : "libSystem.dylib");
}

/** The anonymous mapping of this process that holds `address`. */
function findMapping(address: Address): Mapping | undefined {
  for (const line of fs.readFileSync("/proc/self/maps", "utf8").split("\n")) {
    const [, from, to, rest = ""] = /^([0-9a-f]+)-([0-9a-f]+) rw-p (.*)$/.exec(line) ?? [];
    const start = BigInt(`0x${from ?? "0"}`);
    const end = BigInt(`0x${to ?? "0"}`);
    if (address < start || address >= end) continue;
    const anonymous = / 0 *$/.test(rest);
    return anonymous ? { address: start, byteLength: Number(end - start) } : undefined;
  }
  return undefined;
}

function libcName(): string {
  const report = process.report?.getReport() as
    | { header?: { glibcVersionRuntime?: string } }
    | undefined;
  if (report?.header?.glibcVersionRuntime !== undefined) return "libc.so.6";
  return process.arch === "arm64" ? "libc.musl-aarch64.so.1" : "libc.musl-x86_64.so.1";
}

function prefixOf(name: string): string {
  return `lockstep-${name}.`;
}

function find(folder: string, name: string): string | undefined {
  const prefix = prefixOf(name);
  return inFolder(folder, () => fs.readdirSync(folder)).find(
    (file) =>
      file.startsWith(prefix) &&
      /^\d+\.\d+$/.test(file.slice(prefix.length)) &&
      isOwnFile(path.join(folder, file)),
  );
}

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = fs.constants;
const CREATE = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
/** O_NONBLOCK: a pipe in place of the file must not block the process. */
const OPEN = O_RDWR | O_NOFOLLOW | O_NONBLOCK;

function isOwnFile(file: string): boolean {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  return stat !== undefined && isOwn(stat);
}

/** Whether this is a regular file of this user that no other user may open. */
function isOwn(stat: fs.Stats): boolean {
  return stat.isFile() && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0;
}

function notOwn(name: string, folder: string): LockstepError {
  return new LockstepError(
    "MEMORY_NAME",
    `The file of shared memory "${name}" in ${folder} is not one that this user made.`,
    { hint: "Another user of this machine has created it.", fields: { name } },
  );
}

/**
 * Runs `body` and explains in words what the system refuses in this folder. Only runs of several
 * processes need shared memory.
 */
function inFolder<Result>(folder: string, body: () => Result): Result {
  try {
    return body();
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    const why =
      new Map([
        ["ENOENT", "there is no such folder"],
        ["EROFS", "it is read-only"],
        ["EACCES", "this user may not use it"],
        ["EPERM", "this user may not use it"],
        ["ENOSPC", "it is full"],
        ["EFBIG", "this process may not write files so large"],
        ["EMFILE", "this process has too many files open"],
      ]).get(code ?? "") ?? `the system reports ${code}`;
    throw new LockstepError("SHARED_MEMORY", `Memory cannot be shared in ${folder}: ${why}.`, {
      hint: `The workers of a machine share memory there. Give them a ${folder} that can be written (in a container: --shm-size, or a tmpfs), or train with one worker, which needs none.`,
      fields: { folder },
      cause,
    });
  }
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
function sweep(folder: string): void {
  const here = pidNamespace();
  let files: string[];
  try {
    files = fs.readdirSync(folder);
  } catch {
    return; // whoever needs shared memory gets an error that says why there is none
  }
  for (const file of files) {
    const [, namespace, pid] = /^lockstep-.*\.(\d+)\.(\d+)$/.exec(file) ?? [];
    if (namespace !== here || isAlive(Number(pid))) continue;
    // A file of another user is left to a process of that user.
    if (isOwnFile(path.join(folder, file))) fs.rmSync(path.join(folder, file), { force: true });
  }
}

function isAlive(pid: number): boolean {
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

function byteLengthOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function outOfMemory(byteLength: number, errno: number, where?: string): LockstepError {
  const place = where === undefined ? "" : ` in ${where}`;
  return new LockstepError(
    "OUT_OF_MEMORY",
    `${(byteLength / 2 ** 20).toFixed(1)} MiB of memory could not be allocated${place} (errno ${errno}).`,
    {
      hint:
        where === "/dev/shm"
          ? "Enlarge /dev/shm (in a container: docker run --shm-size=8g)."
          : LESS_MEMORY,
      fields: { byteLength, errno },
    },
  );
}
