/** What a system must offer: pages of memory, private, named or of a file. Implementations know only this. */
import type { Address } from "./ffi.ts";

export interface Mapping {
  readonly address: Address;
  readonly byteLength: number;
}

/** Bytes of a mapping. */
export interface Part {
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface NamedMapping extends Mapping {
  /** Removes the name; those who mapped it keep their memory. */
  readonly unlink: () => void;
}

export interface Platform {
  /**
   * Zeroed pages. `isSparse`: only parts of them will be touched, so pages stay as small as the system has them.
   * Throws OUT_OF_MEMORY.
   */
  map(byteLength: number, isSparse: boolean): Mapping;
  /** Zeroed pages under a name that no living process uses. The system is asked at once for room for `parts`. */
  create(name: string, byteLength: number, parts: readonly Part[]): NamedMapping;
  /** Pages that another process created. */
  open(name: string): Mapping;
  /** The bytes of a file, read only. */
  mapFile(path: string): Mapping;
  /**
   * Gives the memory back while JavaScript may still hold views of it. Returns false where the system can only
   * do so by unmapping, which must then wait until the views are gone.
   */
  retire(mapping: Mapping): boolean;
  unmap(mapping: Mapping): void;
  /** Takes pages of shared memory, from the first byte of one, out of this process, until it touches them again. A hint. */
  letGo(address: Address, byteLength: number): void;
  /** Asks for large pages around `address`: all of the private pages that were mapped with it. A hint. */
  preferLargePages(address: Address): void;
}
