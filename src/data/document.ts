/** Documents: files, or records of a file, as UTF-8 bytes. */

import { assert } from "../errors.ts";
import { readRange, readWhole } from "../files/index.ts";
import { FILES_AT_ONCE, type FoundFile, inParallel } from "./find.ts";

/**
 * A document. It has either `content`, its bytes in memory, or `path`, the file to read them from.
 */
export interface Document {
  /** The name relative to the base folder. */
  readonly name: string;
  readonly byteLength: number;
  readonly path: string | undefined;
  /** The offset in the file at which it begins. */
  readonly offset: number;
  readonly content: Uint8Array | undefined;
}

/**
 * Text up to this size is read as a whole when data is opened, so that near-duplicates can be found
 * by content.
 */
export const MAX_LOADED_BYTES = 2 ** 28;

export async function loadDocuments(
  files: readonly FoundFile[],
  maxBytes = MAX_LOADED_BYTES,
): Promise<Document[]> {
  const total = files.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (total > maxBytes) return files.map((file) => ({ ...file, offset: 0, content: undefined }));
  return inParallel(files, FILES_AT_ONCE, async (file) => ({
    ...file,
    offset: 0,
    content: await readWhole(file.path, file.byteLength),
  }));
}

export async function contentOf(document: Document): Promise<Uint8Array> {
  return document.content ?? (await partOf(document, 0, document.byteLength));
}

/** Reads some of a document's bytes. */
export async function partOf(
  document: Document,
  start: number,
  length: number,
): Promise<Uint8Array> {
  if (document.content !== undefined) return document.content.subarray(start, start + length);
  assert(document.path !== undefined, `document "${document.name}" is nowhere`);
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
