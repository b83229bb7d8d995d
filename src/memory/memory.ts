/**
 * Memory outside the JavaScript heap, for parameters, gradients and activations. It is zeroed,
 * aligned to pages (so to 64 bytes), and private or under a name by which other processes open it.
 */
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { resolve } from "node:path";
import { assert, LockstepError } from "../errors.ts";
import type { Address } from "./ffi.ts";
import { isHandle } from "./named-files.ts";
import { LARGEST_VIEW, opened, type Pages, release, retain, viewOf } from "./pages.ts";
import type { Mapping, NamedMapping, Part, Platform } from "./platform.ts";
import { posixPlatform } from "./posix.ts";
import { windowsPlatform } from "./windows.ts";

const PAGE_BYTES = 4096;

export interface AllocateMemoryOptions {
  /**
   * A name by which other processes of this machine can open the memory: letters, digits, `-` and
   * `_`, at most 100.
   */
  readonly shareAs?: string;
  /**
   * The only parts that will ever be touched; the rest takes addresses but no memory. Default: all.
   */
  readonly parts?: readonly Part[] | undefined;
  /**
   * A folder of a disk: the memory lies in a file there, which the system writes out and reads
   * again as memory runs short. The space on the disk is taken at once. The file loses its name at
   * once, or with `shareAs` by `unlink`; it goes with the last process that has it mapped, however
   * that ends.
   */
  readonly folder?: string | undefined;
}

/**
 * A piece of memory. Views of it stay harmless after `close`: the pages are returned to the system
 * at once, the addresses when the last view is collected.
 */
export class Memory {
  readonly byteLength: number;
  /** The folder of the disk that it lies on; undefined for memory proper. */
  readonly folder: string | undefined;
  #name: string | undefined;
  #mapping: Mapping | undefined;
  readonly #unlink: () => void;
  #handle: string | undefined;
  readonly #closeHandle: () => void;
  readonly #pages: Pages;
  /** Whether other processes, or a file, have the same pages. */
  readonly #isShared: boolean;

  /** @internal Use `allocateMemory`, `openMemory` or `mapFile`. */
  constructor(
    pages: Pages,
    byteLength: number,
    given: {
      readonly name?: string;
      readonly folder?: string | undefined;
      readonly isShared?: boolean;
    } = {},
  ) {
    const { name, folder, isShared = name !== undefined } = given;
    this.byteLength = byteLength;
    this.folder = folder;
    this.#isShared = isShared;
    this.#name = name;
    this.#mapping = pages.mapping;
    this.#pages = retain(pages);
    const named: Partial<NamedMapping> = pages.mapping;
    this.#unlink = named.unlink ?? (() => undefined);
    this.#handle = named.handle;
    this.#closeHandle = named.closeHandle ?? (() => undefined);
  }

  /** The name by which other processes can open it; undefined once the name is removed. */
  get name(): string | undefined {
    return this.#name;
  }

  /**
   * By which other processes of this user open it: its name, and once that is removed a handle, if
   * the system has any.
   */
  get reachedAs(): string | undefined {
    return this.#name ?? this.#handle;
  }

  get closed(): boolean {
    return this.#mapping === undefined;
  }

  /** The address of the first byte. Throws ENGINE_CLOSED after close. */
  get address(): Address {
    return this.#open().address;
  }

  /**
   * The whole memory as one view. Throws OUT_OF_MEMORY if it is longer than a view can be: use
   * `view`.
   */
  get bytes(): Uint8Array {
    return this.view(0, this.byteLength);
  }

  /** A view of `byteLength` bytes from `byteOffset`; at most LARGEST_VIEW of them. */
  view(byteOffset: number, byteLength: number): Uint8Array {
    this.#open();
    assert(
      byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= this.byteLength,
      `a view of ${byteLength} bytes at ${byteOffset} in memory of ${this.byteLength}`,
    );
    if (byteLength === 0) return new Uint8Array(0);
    const found = viewOf(this.#pages, byteOffset, byteLength);
    if (found !== undefined) return found;
    throw new LockstepError(
      "OUT_OF_MEMORY",
      `A view of ${byteLength} bytes is longer than the ${LARGEST_VIEW} that this version of Node.js allows.`,
      { hint: "Use Node.js 22 or newer, or views of parts.", fields: { byteLength } },
    );
  }

  /**
   * Takes room for a part that was not among the `parts` that would be touched: without it, writing
   * there ends the process where the disk is full. Throws OUT_OF_MEMORY, DISK_FULL.
   */
  reserve(byteOffset: number, byteLength: number): void {
    if (byteLength === 0 || this.#pages.system.reserve(this.#open(), { byteOffset, byteLength })) {
      return;
    }
    const where = this.folder === undefined ? "of memory" : `on the disk of "${this.folder}"`;
    throw new LockstepError(
      this.folder === undefined ? "OUT_OF_MEMORY" : "DISK_FULL",
      `${Math.ceil(byteLength / 1e6)} MB ${where} could not be had.`,
      { fields: { byteLength } },
    );
  }

  /** Gives the pages of a part back, for all processes: nobody reads there any more. */
  discard(byteOffset: number, byteLength: number): void {
    this.#pages.system.discard(this.#open(), { byteOffset, byteLength }, this.#isShared);
  }

  /**
   * Takes pages that other processes wrote, and that this one has read, out of this process, which
   * maps them again when it next touches them. What they hold stays. It does nothing to private
   * memory.
   */
  letGo(byteOffset: number, byteLength: number): void {
    const { address } = this.#open();
    // Where pages are larger, the system may refuse, and nothing changes.
    const start = byteOffset - (byteOffset % PAGE_BYTES);
    const length = byteOffset + byteLength - start;
    if (this.#isShared) this.#pages.system.letGo(address + BigInt(start), length);
  }

  /**
   * Removes the name: those who have opened the memory keep it, nobody else can open it, and
   * nothing is left behind even if all of them are killed.
   */
  unlink(): void {
    this.#open();
    this.#unlink();
    this.#name = undefined;
  }

  /** Returns the memory to the system. A second call does nothing. */
  close(): void {
    if (this.#mapping === undefined) return;
    const pages = this.#pages;
    this.#unlink();
    if (this.#handle !== undefined) this.#closeHandle();
    this.#handle = undefined;
    this.#mapping = undefined;
    release(pages);
  }

  #open(): Mapping {
    if (this.#mapping !== undefined) return this.#mapping;
    throw new LockstepError("ENGINE_CLOSED", "This memory was closed.", {
      hint: "Close whatever uses it before the memory is closed.",
    });
  }
}

let cachedPlatform: Platform | undefined;

function pagesOf(mapping: Mapping | NamedMapping, identity?: string): Pages {
  return { mapping, system: platform(), identity, users: 0, live: 0 };
}

function platform(): Platform {
  cachedPlatform ??= process.platform === "win32" ? windowsPlatform() : posixPlatform();
  return cachedPlatform;
}

/**
 * Allocates zeroed memory. Throws OUT_OF_MEMORY, MEMORY_NAME if the name is taken, and with
 * `folder` DISK_FULL and IO_FAILED.
 */
export function allocateMemory(byteLength: number, options: AllocateMemoryOptions = {}): Memory {
  assert(Number.isSafeInteger(byteLength) && byteLength >= 0, `memory of ${byteLength} bytes`);
  const system = platform();
  const mapped = Math.max(64, byteLength);
  const { shareAs, parts = [{ byteOffset: 0, byteLength: mapped }] } = options;
  if (shareAs === undefined && options.folder === undefined) {
    return new Memory(pagesOf(system.map(mapped, options.parts !== undefined)), byteLength);
  }
  // Processes with another working directory open it, too.
  const folder = options.folder === undefined ? undefined : resolve(options.folder);
  const name = shareAs === undefined ? uniqueName() : checkName(shareAs);
  const mapping = system.create(name, mapped, parts, folder);
  const memory = new Memory(pagesOf(mapping), byteLength, { name, folder });
  if (shareAs === undefined) memory.unlink();
  return memory;
}

/**
 * Opens memory that another process, or this one, allocated with `shareAs: name`, and with this
 * folder if any. `name` may also be what `reachedAs` says there. Throws MEMORY_NAME.
 */
export function openMemory(name: string, folder?: string): Memory {
  const known = (identity: string) => opened.get(identity)?.mapping;
  const checked = isHandle(name) ? name : checkName(name);
  const { identity, ...mapping } = platform().open(checked, folder, known);
  const pages = opened.get(identity ?? "") ?? pagesOf(mapping, identity);
  if (identity !== undefined) opened.set(identity, pages);
  return new Memory(pages, mapping.byteLength, { name, folder });
}

/**
 * Maps the bytes of a file, read only: a write to them ends the process. Throws FILE_NOT_FOUND,
 * IO_FAILED.
 */
export function mapFile(path: string): Memory {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile()) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no file ${path}.`, { fields: { path } });
  }
  if (stat.size === 0) return allocateMemory(0);
  try {
    const mapping = platform().mapFile(path);
    return new Memory(pagesOf(mapping), mapping.byteLength, { isShared: true });
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw new LockstepError("IO_FAILED", `${path} cannot be read: ${String(cause)}`, {
      fields: { path },
      cause,
    });
  }
}

/**
 * Asks for large pages in memory that a library has allocated, before it is touched: they cause
 * fewer page faults and fewer TLB misses. It is only a hint, and works on Linux only.
 */
export function preferLargePages(address: Address): void {
  platform().preferLargePages(address);
}

/** A name that no other memory has. */
export function uniqueName(): string {
  return `${process.pid}-${randomBytes(6).toString("hex")}`;
}

function checkName(name: string): string {
  if (/^[\w-]{1,100}$/.test(name)) return name;
  throw new LockstepError("MEMORY_NAME", `"${name}" cannot name shared memory.`, {
    hint: "Use letters, digits, - and _, at most 100 of them.",
    fields: { name },
  });
}
