/** Documents, and the text that they make one after the other: in memory while small, else read from the files by ranges. */

import { readRange, readWhole } from "../files/index.ts";
import { FILES_AT_ONCE, type FoundFile, inParallel } from "./find.ts";

/** A file, or a record of a file, as UTF-8 bytes. Without `content` it is read from `path` when needed. */
export interface Document {
  /** Relative to the base folder. */
  readonly name: string;
  readonly byteLength: number;
  readonly path: string;
  /** Where in the file it begins. */
  readonly offset: number;
  readonly content: Uint8Array | undefined;
}

/** Text up to this size is kept in memory. */
export const MAX_CACHED_BYTES = 256 * 2 ** 20;

export async function loadDocuments(
  files: readonly FoundFile[],
  maxCachedBytes = MAX_CACHED_BYTES,
): Promise<Document[]> {
  const total = files.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (total > maxCachedBytes)
    return files.map((file) => ({ ...file, offset: 0, content: undefined }));
  return inParallel(files, FILES_AT_ONCE, async (file) => ({
    ...file,
    offset: 0,
    content: await readWhole(file.path, file.byteLength),
  }));
}

export async function contentOf(document: Document): Promise<Uint8Array> {
  return document.content ?? (await partOf(document, 0, document.byteLength));
}

/** Some of a document's bytes. */
export async function partOf(
  document: Document,
  start: number,
  length: number,
): Promise<Uint8Array> {
  if (document.content !== undefined) return document.content.subarray(start, start + length);
  const bytes = new Uint8Array(length);
  await readRange(document.path, document.offset + start, bytes);
  return bytes;
}

/** The two documents that a cut at byte `at` makes of one. */
export function cutDocument(document: Document, at: number): [Document, Document] {
  const piece = (start: number, end: number): Document => ({
    ...document,
    byteLength: end - start,
    offset: document.offset + start,
    content: document.content?.subarray(start, end),
  });
  return [piece(0, at), piece(at, document.byteLength)];
}

/** Documents laid end to end, with one separator byte after each. */
export interface ByteStore {
  readonly byteLength: number;
  read(start: number, length: number): Promise<Uint8Array>;
}

export function byteStore(documents: readonly Document[], separator: number): ByteStore {
  const starts = new Float64Array(documents.length);
  let byteLength = 0;
  for (const [index, document] of documents.entries()) {
    starts[index] = byteLength;
    byteLength += document.byteLength + 1;
  }
  if (documents.every(({ content }) => content !== undefined)) {
    const all = new Uint8Array(byteLength).fill(separator);
    for (const [index, { content }] of documents.entries()) {
      if (content !== undefined) all.set(content, starts[index]);
    }
    return { byteLength, read: async (start, length) => all.subarray(start, start + length) };
  }
  return {
    byteLength,
    read: async (start, length) => {
      const bytes = new Uint8Array(length).fill(separator);
      for (let i = lastAtOrBelow(starts, start); i < documents.length; i++) {
        const from = starts[i] as number;
        if (from >= start + length) break;
        const document = documents[i] as Document;
        const first = Math.max(start, from);
        const end = Math.min(start + length, from + document.byteLength);
        if (end <= first) continue;
        bytes.set(await partOf(document, first - from, end - first), first - start);
      }
      return bytes;
    },
  };
}

/** The index of the last of the sorted `values` that is not above `limit`. */
export function lastAtOrBelow(values: Float64Array, limit: number): number {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((values[middle] as number) <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The bytes [start, end) in pieces of a bounded size. */
export async function* piecesOf(
  store: ByteStore,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  const size = 1 << 20;
  for (let at = start; at < end; at += size) yield await store.read(at, Math.min(size, end - at));
}
