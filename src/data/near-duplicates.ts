/**
 * Which documents belong together, so that none is trained on while its twin is held out: files of one name
 * (`core.d.ts`, `core.d.cts`), and files that share half of their lines or more. Packages are full of both.
 *
 * Resemblance is estimated by bottom-k sketches of the lines' hashes (Broder, "On the resemblance and containment
 * of documents", 1997). Documents too large to be in memory, or too many, are grouped by name alone.
 */
import type { Document } from "./document.ts";

/** Lines a sketch holds; two documents are near-duplicates if they share half of the smaller one's. */
const SKETCH = 64;
/** A line that so many documents have (a licence, an import) says nothing. */
const MAX_SHARING = 200;
const MAX_DOCUMENTS = 50_000;
/** Shorter lines (a brace, `export {};`) say nothing either. */
const MIN_LINE_BYTES = 12;
/** A document with fewer telling lines is grouped by name alone. */
const MIN_LINES = 4;

/** Groups of documents, each in the given order. */
export function groupNearDuplicates(documents: readonly Document[]): Document[][] {
  const groups = new DisjointSets(documents.length);
  const firstOfStem = new Map<string, number>();
  for (const [index, { name }] of documents.entries()) {
    const stem = stemOf(name);
    const first = firstOfStem.get(stem);
    if (first === undefined) firstOfStem.set(stem, index);
    else groups.join(first, index);
  }
  if (documents.length <= MAX_DOCUMENTS) joinResembling(documents, groups);
  const byRoot = new Map<number, Document[]>();
  for (const [index, document] of documents.entries()) {
    const root = groups.find(index);
    const group = byRoot.get(root);
    if (group === undefined) byRoot.set(root, [document]);
    else group.push(document);
  }
  return [...byRoot.values()];
}

/** The path without all that follows the first dot of the file's name; records of a file stand alone. */
function stemOf(name: string): string {
  const slash = name.lastIndexOf("/") + 1;
  const dot = name.indexOf(".", slash + 1);
  return name.includes("#") || dot === -1 ? name : name.slice(0, dot);
}

function joinResembling(documents: readonly Document[], groups: DisjointSets): void {
  const sketches = documents.map(({ content }) => (content === undefined ? [] : sketchOf(content)));
  const holders = new Map<number, number[]>();
  for (const [index, sketch] of sketches.entries()) {
    const shared = new Map<number, number>();
    for (const hash of sketch) {
      const others = holders.get(hash);
      if (others === undefined) {
        holders.set(hash, [index]);
        continue;
      }
      if (others.length >= MAX_SHARING) continue;
      for (const other of others) shared.set(other, (shared.get(other) ?? 0) + 1);
      others.push(index);
    }
    for (const [other, count] of shared) {
      const smaller = Math.min(sketch.length, sketches[other]?.length ?? 0);
      if (smaller >= MIN_LINES && count * 2 >= smaller) groups.join(other, index);
    }
  }
}

/** The smallest hashes among the document's lines, without blanks at their ends. */
function sketchOf(content: Uint8Array): number[] {
  const hashes = new Set<number>();
  let start = 0;
  while (start < content.length) {
    let end = content.indexOf(10, start);
    if (end === -1) end = content.length;
    const hash = hashLine(content, start, end);
    if (hash !== undefined) hashes.add(hash);
    start = end + 1;
  }
  return [...hashes].sort((a, b) => a - b).slice(0, SKETCH);
}

/** FNV-1a over the bytes that are no blanks, mixed once more so that its order is random. */
function hashLine(content: Uint8Array, start: number, end: number): number | undefined {
  let hash = 0x811c9dc5;
  let count = 0;
  for (let i = start; i < end; i++) {
    const byte = content[i] as number;
    if (byte <= 32) continue;
    hash = Math.imul(hash ^ byte, 0x01000193);
    count++;
  }
  if (count < MIN_LINE_BYTES) return undefined;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/** Tarjan's union-find with path halving; the smaller index is the root, so that results do not depend on luck. */
class DisjointSets {
  readonly #parent: Int32Array;

  constructor(size: number) {
    this.#parent = Int32Array.from({ length: size }, (_, index) => index);
  }

  find(index: number): number {
    let at = index;
    for (;;) {
      const parent = this.#parent[at] as number;
      if (parent === at) return at;
      const grandparent = this.#parent[parent] as number;
      this.#parent[at] = grandparent;
      at = grandparent;
    }
  }

  join(a: number, b: number): void {
    const [first, second] = [this.find(a), this.find(b)].sort((x, y) => x - y) as [number, number];
    this.#parent[second] = first;
  }
}
