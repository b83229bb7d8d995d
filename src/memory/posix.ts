/**
 * Memory on Linux and macOS, by mmap. Named memory is a file (`named-files.ts`), under /dev/shm
 * (Linux) or in the folder for temporary files (macOS), or in a given folder of a disk.
 */
import fs from "node:fs";
import os from "node:os";
import { getSystemErrorName } from "node:util";
import koffi from "koffi";
import { LESS_MEMORY, LockstepError, MORE_SHARED_MEMORY } from "../errors.ts";
import { type Address, type Library, loadLibrary } from "./ffi.ts";
import {
  createNamed,
  handleOf,
  inPlace,
  isHandle,
  openHandle,
  openNamed,
  type Place,
  refused,
  SHARED_FOLDER,
  sweep,
} from "./named-files.ts";
import type { Mapping, NamedMapping, OpenedMapping, Part, Platform } from "./platform.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MADV_REMOVE = 9;
const MADV_POPULATE_WRITE = 23;
const EINTR = 4;
const EINVAL = 22;
const ENOSYS = 38;
const EOPNOTSUPP = 95;
/** What `posix_fallocate` says of a file system that cannot reserve space. */
const CANNOT_RESERVE = new Set([EINVAL, ENOSYS, EOPNOTSUPP]);
const PAGE_BYTES = 4096n;
const ZEROS = new Uint8Array(2 ** 20);
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
  const fallocate = linux
    ? libc.func<Reserve>("int posix_fallocate(int fd, int64_t offset, int64_t length)")
    : () => EOPNOTSUPP;
  const madvise = linux
    ? libc.func<Madvise>("int madvise(void *address, size_t length, int advice)")
    : () => 0;
  const shared: Place = { folder: linux ? SHARED_FOLDER : os.tmpdir(), use: "shared" };
  sweep(shared.folder);
  const placeOf = (folder: string | undefined): Place =>
    folder === undefined ? shared : { folder, use: "disk" };

  /**
   * Takes the space of a part of a file: without it, a write to a page there would end the process.
   */
  const reserve = (place: Place, fd: number, { byteOffset, byteLength }: Part): void => {
    let errno: number;
    do errno = fallocate(fd, byteOffset, byteLength);
    while (errno === EINTR);
    if (errno === 0) return;
    if (place.use === "shared") {
      if (linux) throw outOfMemory(byteLength, errno, place.folder);
      return;
    }
    if (!CANNOT_RESERVE.has(errno))
      throw refused(place, getSystemErrorName(-errno), { byteLength });
    let at = 0;
    while (at < byteLength) {
      const length = Math.min(ZEROS.byteLength, byteLength - at);
      at += inPlace(place, () => fs.writeSync(fd, ZEROS, 0, length, byteOffset + at));
    }
  };

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

    create(name, byteLength, parts, folder): NamedMapping {
      const place = placeOf(folder);
      const { fd, unlink } = createNamed(place, name);
      const handle = place.use === "shared" ? handleOf(fd) : undefined;
      try {
        inPlace(place, () => fs.ftruncateSync(fd, byteLength));
        for (const part of parts) if (part.byteLength > 0) reserve(place, fd, part);
        const mapping = mapDescriptor(fd, byteLength, PROT_READ | PROT_WRITE);
        if (handle === undefined) fs.closeSync(fd);
        return { ...mapping, unlink, handle, closeHandle: () => fs.closeSync(fd) };
      } catch (error) {
        unlink();
        fs.closeSync(fd);
        throw error;
      }
    },

    open(name, folder, known): OpenedMapping {
      const { fd, size, identity } = isHandle(name)
        ? openHandle(name)
        : openNamed(placeOf(folder), name);
      try {
        const mapping = known(identity) ?? mapDescriptor(fd, size, PROT_READ | PROT_WRITE);
        return { ...mapping, identity };
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

    reserve({ address }, { byteOffset, byteLength }): boolean {
      const start = address + BigInt(byteOffset);
      const first = start - (start % PAGE_BYTES);
      const length = Number(start - first) + byteLength;
      while (madvise(first, length, MADV_POPULATE_WRITE) !== 0) {
        // Kernels before 5.14 do not know it.
        if (koffi.errno() === EINVAL) return true;
        if (koffi.errno() !== EINTR) return false;
      }
      return true;
    },

    discard({ address }, { byteOffset, byteLength }, isShared): void {
      const page = Number(PAGE_BYTES);
      const first = Math.ceil(byteOffset / page) * page;
      const length = Math.floor((byteOffset + byteLength) / page) * page - first;
      if (length <= 0) return;
      madvise(address + BigInt(first), length, isShared ? MADV_REMOVE : MADV_DONTNEED);
    },

    letGo: (address, byteLength) => void madvise(address, byteLength, MADV_DONTNEED),
    preferLargePages(address): void {
      const mapping = linux ? findMapping(address) : undefined;
      if (mapping !== undefined) madvise(mapping.address, mapping.byteLength, MADV_HUGEPAGE);
    },
  };
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

/** The C library that this process runs on: glibc's, or musl's, whose loader is the library. */
function libcName(): string {
  const maps = fs.readFileSync("/proc/self/maps", "latin1");
  const name = /\s(\/\S*\/(?:libc\.so\.6|libc-[\d.]+\.so|(?:ld|libc\.)-?musl-[^/\s]+))$/m;
  return name.exec(maps)?.[1] ?? "libc.so.6";
}

function outOfMemory(byteLength: number, errno: number, where?: string): LockstepError {
  const place = where === undefined ? "" : ` in ${where}`;
  return new LockstepError(
    "OUT_OF_MEMORY",
    `${(byteLength / 2 ** 20).toFixed(1)} MiB of memory could not be allocated${place} (errno ${errno}).`,
    {
      hint: where === SHARED_FOLDER ? MORE_SHARED_MEMORY : LESS_MEMORY,
      fields: { byteLength, errno },
    },
  );
}
