/**
 * What an operating system must offer: pages of memory, private, named or of a file.
 * Implementations depend on this file only.
 */
import type { Address } from "./ffi.ts";

export interface Mapping {
  readonly address: Address;
  readonly byteLength: number;
}

export interface NamedMapping extends Mapping {
  /** Removes the name; those who mapped it keep their memory. */
  readonly unlink: () => void;
}

export interface Platform {
  /** Maps zeroed pages. Throws OUT_OF_MEMORY. */
  map(byteLength: number): Mapping;
  /** Maps zeroed pages under a name that no living process uses. */
  create(name: string, byteLength: number): NamedMapping;
  /** Maps pages that another process created. */
  open(name: string): Mapping;
  /** Maps the bytes of a file, read only. */
  mapFile(path: string): Mapping;
  /**
   * Returns the memory to the system while JavaScript may still hold views of it. Returns false if
   * the system can do that only by unmapping, which must then wait until the views are gone.
   */
  retire(mapping: Mapping): boolean;
  unmap(mapping: Mapping): void;
  /**
   * Asks for large pages around `address`, in all private pages that were mapped with it. It is
   * only a hint.
   */
  preferLargePages(address: Address): void;
}
