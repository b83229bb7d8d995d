/**
 * What a system must offer: pages of memory, private, named or backed by a file. Implementations
 * know only this interface.
 */
import type { Address } from "./ffi.ts";

export interface Mapping {
  readonly address: Address;
  readonly byteLength: number;
}

/** A mapping of a file that other processes may have mapped too. */
export interface OpenedMapping extends Mapping {
  /** Tells the file from all others while it is mapped; undefined where that is not known. */
  readonly identity?: string | undefined;
}

/** A range of bytes of a mapping. */
export interface Part {
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface NamedMapping extends Mapping {
  /** Removes the name. Processes that mapped the memory keep it. */
  readonly unlink: () => void;
  /** Where other processes open it without its name, while this process lives; if they can. */
  readonly handle?: string | undefined;
  /** Ends that. */
  readonly closeHandle?: () => void;
}

export interface Platform {
  /**
   * Maps zeroed pages. If `isSparse`, only parts of them will be touched, so the system's smallest
   * pages are used.
   * @throws OUT_OF_MEMORY
   */
  map(byteLength: number, isSparse: boolean): Mapping;
  /**
   * Zeroed pages under a name that no living process uses. The system is asked at once for room for
   * `parts`.
   * @param folder of a disk: the pages are those of a file there. Throws DISK_FULL, IO_FAILED then.
   */
  create(
    name: string,
    byteLength: number,
    parts: readonly Part[],
    folder: string | undefined,
  ): NamedMapping;
  /**
   * Pages that another process created, by their name or handle, in a folder of a disk or where
   * memory is shared.
   * @param known returns the mapping of a file with this identity, if there is one: it is used again
   */
  open(
    name: string,
    folder: string | undefined,
    known: (identity: string) => Mapping | undefined,
  ): OpenedMapping;
  /** The bytes of a file, read only. */
  mapFile(path: string): Mapping;
  /**
   * Returns the memory to the system while JavaScript may still hold views of it. Returns false if
   * the system can do so only by unmapping, which must then wait until the views are gone.
   */
  retire(mapping: Mapping): boolean;
  unmap(mapping: Mapping): void;
  /**
   * Asks for the pages of a part that is about to be written. Returns false where there is no room
   * for them.
   */
  reserve(mapping: Mapping, part: Part): boolean;
  /** Gives whole pages back: they hold zeros when they are next touched. It is only a hint. */
  discard(mapping: Mapping, part: Part, isShared: boolean): void;
  /**
   * Takes whole pages of shared memory out of this process until it touches them again. They keep
   * what they hold. It is only a hint.
   */
  letGo(address: Address, byteLength: number): void;
  /**
   * Asks for large pages for all private pages that were mapped with `address`. It is only a hint.
   */
  preferLargePages(address: Address): void;
}
