/**
 * What a system must offer: pages of memory, private, named or backed by a file. Implementations
 * know only this interface.
 */
import type { Address } from "./ffi.ts";

export interface Mapping {
  readonly address: Address;
  readonly byteLength: number;
}

/** A range of bytes of a mapping. */
export interface Part {
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface NamedMapping extends Mapping {
  /** Removes the name. Processes that mapped the memory keep it. */
  readonly unlink: () => void;
}

export interface Platform {
  /**
   * Maps zeroed pages. If `isSparse`, only parts of them will be touched, so the system's smallest
   * pages are used.
   * @throws OUT_OF_MEMORY
   */
  map(byteLength: number, isSparse: boolean): Mapping;
  /**
   * Creates zeroed pages under a name that no living process uses. The system reserves room for
   * `parts` at once.
   */
  create(name: string, byteLength: number, parts: readonly Part[]): NamedMapping;
  /** Maps pages that another process created. */
  open(name: string): Mapping;
  /** Maps the bytes of a file, read only. */
  mapFile(path: string): Mapping;
  /**
   * Returns the memory to the system while JavaScript may still hold views of it. Returns false if
   * the system can do so only by unmapping, which must then wait until the views are gone.
   */
  retire(mapping: Mapping): boolean;
  unmap(mapping: Mapping): void;
  /**
   * Asks for large pages for all private pages that were mapped with `address`. It is only a hint.
   */
  preferLargePages(address: Address): void;
}
