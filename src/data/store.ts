/**
 * Documents as one sequence of bytes: in memory if small, otherwise read from their files by
 * ranges.
 */
import { FilePool } from "../files/index.ts";
import type { Document } from "./document.ts";

/** Documents laid end to end, with one separator byte after each. */
export interface ByteStore {
  readonly byteLength: number;
  /** A view of memory, which must not be written to, or a copy. */
  read(start: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * The most bytes that each process keeps in memory; beyond it, the system's file cache serves all
 * processes of a machine.
 */
export const MAX_KEPT_BYTES = 2 ** 26;

/** Documents without a path stay in memory, whatever their size. */
export function byteStore(
  documents: readonly Document[],
  separator: number,
  maxKeptBytes = MAX_KEPT_BYTES,
): ByteStore {
  const starts = new Float64Array(documents.length);
  let byteLength = 0;
  for (const [index, document] of documents.entries()) {
    starts[index] = byteLength;
    byteLength += document.byteLength + 1;
  }
  const inMemory = documents.every(({ content }) => content !== undefined);
  const onDisk = documents.every(({ path }) => path !== undefined);
  return inMemory && (byteLength <= maxKeptBytes || !onDisk)
    ? memoryStore(documents, starts, byteLength, separator)
    : fileStore(
        documents.map((document) => ({ ...document, content: undefined })),
        starts,
        byteLength,
        separator,
      );
}

function memoryStore(
  documents: readonly Document[],
  starts: Float64Array,
  byteLength: number,
  separator: number,
): ByteStore {
  const all = new Uint8Array(byteLength).fill(separator);
  for (const [index, { content }] of documents.entries()) {
    if (content !== undefined) all.set(content, starts[index]);
  }
  return {
    byteLength,
    read: async (start, length) => all.subarray(start, start + length),
    close: () => Promise.resolve(),
  };
}

function fileStore(
  documents: readonly Document[],
  starts: Float64Array,
  byteLength: number,
  separator: number,
): ByteStore {
  const files = new FilePool();
  return {
    byteLength,
    read: async (start, length) => {
      const bytes = new Uint8Array(length).fill(separator);
      for (let i = lastAtOrBelow(starts, start); i < documents.length; i++) {
        const from = starts[i] as number;
        if (from >= start + length) break;
        const { path, offset, byteLength: size } = documents[i] as Document;
        const first = Math.max(start, from);
        const end = Math.min(start + length, from + size);
        if (end <= first || path === undefined) continue;
        await files.read(path, offset + first - from, bytes.subarray(first - start, end - start));
      }
      return bytes;
    },
    close: () => files.close(),
  };
}

/** The index of the last of the sorted `values` that is not above `limit`. */
function lastAtOrBelow(values: Float64Array, limit: number): number {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((values[middle] as number) <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The whole store in pieces of a bounded size. */
export async function* piecesOf(store: ByteStore): AsyncGenerator<Uint8Array> {
  const size = 1 << 20;
  for (let at = 0; at < store.byteLength; at += size) {
    yield await store.read(at, Math.min(size, store.byteLength - at));
  }
}
