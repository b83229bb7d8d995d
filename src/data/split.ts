/**
 * Splits a corpus into text for training and held-out text, so that neither contains text of the
 * other.
 */
import { createHash } from "node:crypto";
import { contentOf, cutDocument, type Document, partOf } from "./document.ts";
import { groupNearDuplicates } from "./near-duplicates.ts";

export interface Split {
  readonly train: readonly Document[];
  /** The held-out documents; empty if nothing is held out. */
  readonly validation: readonly Document[];
}

/** Removes documents whose bytes equal those of another; the first of each is kept. */
export async function dropDuplicates(documents: readonly Document[]): Promise<Document[]> {
  const sizes = new Map<number, number>();
  for (const { byteLength } of documents) sizes.set(byteLength, (sizes.get(byteLength) ?? 0) + 1);
  const seen = new Set<string>();
  const kept: Document[] = [];
  for (const document of documents) {
    // Only documents of equal size can be equal: the others need no hash.
    if ((sizes.get(document.byteLength) ?? 0) > 1) {
      const digest = await digestOf(document);
      if (seen.has(digest)) continue;
      seen.add(digest);
    }
    kept.push(document);
  }
  return kept;
}

/**
 * Holds out about `part` of the bytes: whole documents if there are enough, otherwise the tail of
 * the text.
 */
export async function splitDocuments(documents: readonly Document[], part: number): Promise<Split> {
  const target = bytesIn(documents) * part;
  if (target === 0) return { train: documents, validation: [] };
  const held = chooseGroups(documents, target);
  if (held === undefined) return splitTail(documents, target);
  return {
    train: documents.filter((document) => !held.has(document)),
    validation: documents.filter((document) => held.has(document)),
  };
}

/**
 * Chooses whole groups of near-duplicates in the order of their names' hashes, so that the choice
 * is the same on every machine and for every seed. Undefined if no choice comes near `target`
 * bytes.
 */
function chooseGroups(documents: readonly Document[], target: number): Set<Document> | undefined {
  const groups = groupNearDuplicates(documents).map((group) => ({
    group,
    bytes: bytesIn(group),
    rank: sha256(group[0]?.name ?? ""),
  }));
  groups.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  const held = new Set<Document>();
  let heldBytes = 0;
  for (const { group, bytes } of groups) {
    if (heldBytes >= target) break;
    if (heldBytes + bytes > target * 1.2) continue; // not one large group alone
    for (const document of group) held.add(document);
    heldBytes += bytes;
  }
  return heldBytes < target * 0.8 ? undefined : held;
}

/** Cuts the text once, at the first line that begins within its last `target` bytes. */
async function splitTail(documents: readonly Document[], target: number): Promise<Split> {
  let tail = 0;
  let index = documents.length - 1;
  while (index > 0 && tail + (documents[index]?.byteLength ?? 0) <= target) {
    tail += documents[index]?.byteLength ?? 0;
    index--;
  }
  const cut = documents[index] as Document;
  const at = await lineStart(cut, Math.max(0, Math.round(cut.byteLength - (target - tail))));
  const [before, after] = cutDocument(cut, at);
  return {
    train: [...documents.slice(0, index), before],
    validation: [after, ...documents.slice(index + 1)].filter(({ byteLength }) => byteLength > 0),
  };
}

/** The longest line that is not cut. A longer line is cut between two characters. */
const MAX_LINE_BYTES = 1 << 16;

async function lineStart(document: Document, from: number): Promise<number> {
  const length = Math.min(MAX_LINE_BYTES, document.byteLength - from);
  const bytes = await partOf(document, from, length);
  const newline = bytes.indexOf(10);
  if (newline !== -1 && newline + 1 < length) return from + newline + 1;
  const character = bytes.findIndex((byte) => (byte & 0xc0) !== 0x80); // a character's first byte
  return character === -1 ? from : from + character;
}

export function bytesIn(documents: readonly Document[]): number {
  return documents.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

async function digestOf(document: Document): Promise<string> {
  return sha256(await contentOf(document));
}

function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
