/** The pages of a mapping, and who uses them: `Memory` objects, and views in JavaScript. */
import { constants } from "node:buffer";
import koffi from "koffi";
import type { Mapping, NamedMapping, Platform } from "./platform.ts";

/** The longest view that this JavaScript engine can hold: 4 GiB on Node 20. */
export const LARGEST_VIEW = constants.MAX_LENGTH;

export interface Pages {
  readonly mapping: Mapping | NamedMapping;
  readonly system: Platform;
  /** Of a file that another process has made. */
  readonly identity?: string | undefined;
  /** The `Memory` objects that are not closed. */
  users: number;
  /** A view of all of them, once there is one. */
  whole?: Uint8Array | undefined;
  /** The buffers of views that JavaScript may still hold. */
  live: number;
}

/**
 * What was opened, by identity. A file that is opened again is not mapped again: its pages are in
 * this process already, and each would cost a page fault.
 */
export const opened = new Map<string, Pages>();

export function retain(pages: Pages): Pages {
  pages.users += 1;
  return pages;
}

/** The last `Memory` that lets go of pages gives them back. */
export function release(pages: Pages): void {
  pages.users -= 1;
  if (pages.users > 0) return;
  pages.whole = undefined;
  if (pages.identity !== undefined) opened.delete(pages.identity);
  if (pages.live === 0) pages.system.unmap(pages.mapping);
  else pages.system.retire(pages.mapping);
}

/**
 * JavaScript counts the bytes of each buffer that is made for a view as memory that it might get
 * back, and searches its heap for garbage after 64 MB of them. So all views have one buffer.
 * @returns undefined for a view that is longer than one can be
 */
export function viewOf(
  pages: Pages,
  byteOffset: number,
  byteLength: number,
): Uint8Array | undefined {
  const { mapping } = pages;
  if (mapping.byteLength <= LARGEST_VIEW) {
    pages.whole ??= newView(pages, mapping.address, mapping.byteLength);
    return pages.whole.subarray(byteOffset, byteOffset + byteLength);
  }
  if (byteLength > LARGEST_VIEW) return undefined;
  return newView(pages, mapping.address + BigInt(byteOffset), byteLength);
}

function newView(pages: Pages, address: bigint, byteLength: number): Uint8Array {
  const buffer = koffi.view(address, byteLength);
  pages.live += 1;
  registry.register(buffer, pages);
  return new Uint8Array(buffer);
}

const registry = new FinalizationRegistry<Pages>((pages) => {
  pages.live -= 1;
  if (pages.users === 0 && pages.live === 0) pages.system.unmap(pages.mapping);
});
